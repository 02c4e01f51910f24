/**
 * Sessions as the log has them: one whose connection has ended is detached, and one that is detached ends when its grace
 * is over. Where it is not certain what has become of a session, nothing is asked of it any more.
 */
import type { Command, CommandResult } from '../../store/index.ts';
import { violated } from './violation.ts';

interface Attached {
  readonly member: number;
  readonly connection: number;
  readonly graceMs: number;
}

export class SessionChecks {
  readonly #attached = new Map<string, Attached>();
  /** When each of them ends, by cluster time. */
  readonly #detached = new Map<string, number>();
  /** Those whose connection has ended, which the log does not say yet. */
  readonly #left = new Set<string>();
  /** Members that were to leave: nothing is proposed by them any more. */
  readonly #leaving = new Set<number>();

  applied(command: Command, result: CommandResult | undefined, timeMs: number): void {
    switch (command.kind) {
      case 'session_open': {
        if (result?.kind !== 'done') return;
        const { session, connection, graceMs, origin } = command;
        this.#forget(session);
        this.#attached.set(session, { member: origin.member, connection, graceMs });
        return;
      }
      case 'session_close':
        return this.#forget(command.session);
      case 'session_detach': {
        const { session, connection, origin } = command;
        this.#left.delete(session);
        const attached = this.#attached.get(session);
        if (attached?.connection !== connection || attached.member !== origin.member) return;
        this.#attached.delete(session);
        this.#detached.set(session, timeMs + attached.graceMs);
        return;
      }
      case 'server_started':
      case 'server_lost':
        return this.#forgetAllOf(command.member);
      case 'member_remove':
        return this.#leaves(command.member);
      case 'member_add':
        return this.#leaves(command.replaces);
      case 'expire':
        for (const { session } of command.sessions) this.#detached.delete(session);
        return;
      default:
    }
  }

  /** A gateway of this member has told its server that the connection of a session has ended. */
  left(member: number, session: string): void {
    if (this.#attached.get(session)?.member === member && !this.#leaving.has(member)) this.#left.add(session);
  }

  /** This member runs, and all that it has proposed is applied. */
  idle(member: number): void {
    for (const session of this.#left) {
      if (this.#attached.get(session)?.member !== member) continue;
      violated(
        'sessions end',
        `session ${session} is still attached to member ${member}, where its connection has ended`,
      );
    }
  }

  overdue(timeMs: number): void {
    for (const [session, endsMs] of this.#detached) {
      if (endsMs > timeMs) continue;
      violated('sessions end', `session ${session} was to end at ${endsMs}; it is ${timeMs}`);
    }
  }

  #leaves(member: number): void {
    this.#leaving.add(member);
    this.#forgetAllOf(member);
  }

  #forgetAllOf(member: number): void {
    for (const [session, attached] of this.#attached) if (attached.member === member) this.#forget(session);
  }

  #forget(session: string): void {
    this.#attached.delete(session);
    this.#detached.delete(session);
    this.#left.delete(session);
  }
}

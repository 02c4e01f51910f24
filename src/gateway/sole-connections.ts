/**
 * Principals whose policies allow one connection: the newest is the one. A second agent with the same certificate takes
 * the first one's place instead of being kept out by it, since the first may be a connection that only its server still
 * believes in; and the first is told not to come back, so that the two do not take turns for ever.
 *
 * At one server the newest is the one that was identified last. Between servers the log decides: who opened a session is
 * replaced by whoever opens another one later, or takes one up on a new connection.
 */
import type { OpenedSession } from '../server/index.ts';
import type { AgentConnection } from './connection.ts';

export class SoleConnections {
  /** By principal. */
  readonly #connections = new Map<string, AgentConnection>();

  /** It is known to be of a principal that may have one. Gives the one of two that has to go. */
  enter(connection: AgentConnection): AgentConnection | undefined {
    const other = this.#connections.get(connection.principal);
    if (other === undefined || other === connection || other.id < connection.id) {
      this.#connections.set(connection.principal, connection);
      return other === connection ? undefined : other;
    }
    return connection;
  }

  of(principal: string): AgentConnection | undefined {
    return this.#connections.get(principal);
  }

  /** It has ended, or its principal may have more than one now. */
  leave(connection: AgentConnection): void {
    const { principal } = connection;
    if (this.#connections.get(principal) === connection) this.#connections.delete(principal);
  }

  /** Those that have to go since sessions were opened, through whichever server. */
  replacedBy(opened: readonly OpenedSession[], nowMs: number): readonly AgentConnection[] {
    if (this.#connections.size === 0) return [];
    return opened.flatMap((one) => {
      const connection = this.#connections.get(one.principal);
      return connection !== undefined && isOlder(connection, one, nowMs) ? [connection] : [];
    });
  }
}

const isOlder = (
  connection: AgentConnection,
  { session, agoMs, newerThan }: OpenedSession,
  nowMs: number,
): boolean => {
  const { standing } = connection;
  switch (standing.kind) {
    // Its own comes later in the log.
    case 'opening':
      return false;
    // The same agent, which may have moved.
    case 'opened':
      return standing.session !== session && (newerThan === undefined || standing.session === newerThan);
    case 'none':
      return newerThan === undefined && connection.acceptedAtMs < nowMs - agoMs;
    default:
      return standing satisfies never;
  }
};

/**
 * The replicated state as all servers together have applied it: who applies an entry first says what it does, all
 * others must say the same. On the way each change is held against the rules of futures: settled at most once,
 * no generation twice, nothing expired before its instant by cluster time.
 */
import { crc32 } from 'node:zlib';
import type { Change, Future } from '../../protocol/index.ts';
import type { Command, CommandResult } from '../../store/index.ts';
import { SessionChecks } from './session-checks.ts';
import { violated } from './violation.ts';

export interface AppliedEntry {
  readonly index: number;
  /** Cluster time, as the state has it then. */
  readonly timeMs: number;
  readonly changes: readonly Change[];
  readonly commands: readonly Command[];
  /** One for each command. */
  readonly results: readonly CommandResult[];
}

const contentOf = (future: Future): string => {
  if (future.state === 'resolved') {
    return `resolved ${future.contentType} ${future.value === undefined ? '-' : crc32(future.value)}`;
  }
  if (future.state === 'rejected') return `rejected ${future.rejection?.code} ${future.rejection?.message}`;
  return future.state;
};

const describe = (change: Change): string => {
  if (change.kind === 'deleted') return `${change.key}@${change.revision} deleted`;
  const { key, generation, revision, expiresAtMs, deadlineAtMs } = change.future;
  return `${key}@${revision} generation ${generation} ${contentOf(change.future)} ${expiresAtMs} ${deadlineAtMs}`;
};

const instantOf = ({ state, deadlineAtMs, expiresAtMs }: Future): number | undefined => {
  if (state === 'expired') return undefined;
  return state === 'pending' ? deadlineAtMs : expiresAtMs;
};

const resultText = (result: CommandResult): string => {
  if (result.kind === 'done') return 'done';
  if (result.kind === 'failed') return `failed ${result.failure.code}`;
  if (result.kind === 'member') return `member ${result.member}`;
  if (result.kind === 'access') return `access ${result.revision} ${result.unchanged}`;
  const { revision, results } = result.result;
  const each = results.map((one) => `${one.generation} ${one.state} ${one.revision} ${one.unchanged}`);
  return `written ${revision} [${each.join(', ')}]`;
};

/** What a write is told when nothing was looked up or remembered for it. */
const notRemembered = new Set(['SESSION_EXPIRED', 'STALE_REQUEST', 'LIMIT_EXCEEDED']);

/** What is due is proposed, committed and applied within it, once there is a leader and time goes on. */
const overdueMs = 5000;

export class StateChecks {
  readonly sessions = new SessionChecks();
  /** Nothing was applied since `converged`. */
  #isIdle = false;
  /** What the first to apply an entry made of it. */
  readonly #entries = new Map<number, { readonly checksum: number; readonly member: number }>();
  readonly #digests = new Map<number, { readonly digest: string; readonly member: number }>();
  /** Every change there was, by key and revision; and the latest of each key. */
  readonly #history = new Map<string, Map<number, Change>>();
  readonly #latest = new Map<string, Change>();
  readonly #generations = new Map<string, number>();
  readonly #outcomes = new Map<string, { readonly outcome: string; readonly revision: number }>();
  readonly #answers = new Map<string, string>();
  #index = 0;
  #timeMs = 0;
  #revision = 0;

  /** Of the last entry that anyone has applied. */
  get index(): number {
    return this.#index;
  }

  /** Cluster time as far as anyone's state has it. */
  get timeMs(): number {
    return this.#timeMs;
  }

  get revision(): number {
    return this.#revision;
  }

  /** Each key's latest change. */
  get latest(): ReadonlyMap<string, Change> {
    return this.#latest;
  }

  changeAt(key: string, revision: number): Change | undefined {
    return this.#history.get(key)?.get(revision);
  }

  /** A server has applied an entry with commands (again, after a restart). */
  applied(member: number, entry: AppliedEntry): void {
    // A snapshot keeps no order within a revision: what a session leaves behind ends in any.
    const changes = entry.changes.map(describe).sort();
    const texts = [...changes, ...entry.results.map(resultText), String(entry.timeMs)];
    const checksum = crc32(texts.join('\n'));
    const known = this.#entries.get(entry.index);
    if (known !== undefined) {
      if (known.checksum !== checksum) {
        violated(
          'state machine safety',
          `entry ${entry.index} did something else at member ${member} than at ${known.member}: ${texts.join('; ')}`,
        );
      }
      return;
    }
    if (entry.index <= this.#index) {
      violated(
        'state machine safety',
        `member ${member} applied ${entry.index}, which nobody applied in its turn`,
      );
    }
    this.#entries.set(entry.index, { checksum, member });
    this.#index = entry.index;
    this.#isIdle = false;
    // A new leader may not have applied what its predecessor had put into the log: the state takes the later time.
    this.#timeMs = Math.max(this.#timeMs, entry.timeMs);
    for (const change of entry.changes) this.#changed(change);
    for (const [position, command] of entry.commands.entries()) {
      const result = entry.results[position];
      this.sessions.applied(command, result, this.#timeMs);
      if (command.kind === 'write' && result !== undefined) this.#executed(command, result);
    }
  }

  /** Cluster time has gone on for a while, and nothing else: what was due has happened. */
  converged(): void {
    this.#isIdle = true;
    this.sessions.overdue(this.#timeMs - overdueMs);
    for (const [key, change] of this.#latest) {
      if (change.kind === 'deleted') continue;
      const atMs = instantOf(change.future);
      if (atMs === undefined || atMs + overdueMs > this.#timeMs) continue;
      violated(
        'nothing overdue',
        `${key} is ${change.future.state}, its time came at ${atMs}; it is ${this.#timeMs}`,
      );
    }
  }

  /** The digest of a server's whole state after an entry: the same wherever it is taken. */
  digest(member: number, index: number, digest: string): void {
    if (this.#isIdle) this.sessions.idle(member);
    const known = this.#digests.get(index);
    if (known === undefined) this.#digests.set(index, { digest, member });
    else if (known.digest !== digest) {
      violated(
        'same state',
        `after entry ${index} member ${member} has another state than member ${known.member} had`,
      );
    }
  }

  #executed(command: Extract<Command, { kind: 'write' }>, result: CommandResult): void {
    if (result.kind === 'failed' && notRemembered.has(result.failure.code)) return;
    const id = `${command.session}/${command.sequence}`;
    const text = resultText(result);
    const before = this.#answers.get(id);
    if (before === undefined) this.#answers.set(id, text);
    else if (before !== text) {
      violated('same answer', `write ${id} was answered "${before}", and then "${text}"`);
    }
  }

  #changed(change: Change): void {
    const { key, revision } = change;
    if (revision !== this.#revision && revision !== this.#revision + 1) {
      violated('revisions', `${key} changed at ${revision}, the one before was ${this.#revision}`);
    }
    this.#revision = revision;
    const before = this.#latest.get(key);
    if (before !== undefined && before.revision >= revision) {
      violated('revisions', `${key} changed at ${revision} behind its change at ${before.revision}`);
    }
    const present = before?.kind === 'future' ? before.future : undefined;
    if (change.kind === 'future') this.#checkFuture(present, change.future);
    this.#latest.set(key, change);
    let history = this.#history.get(key);
    if (history === undefined) this.#history.set(key, (history = new Map()));
    history.set(revision, change);
  }

  #checkFuture(before: Future | undefined, now: Future): void {
    const { key, generation } = now;
    if (before === undefined || before.generation !== generation) {
      const used = this.#generations.get(key) ?? 0;
      if (generation <= used) {
        violated('generations', `${key} begins generation ${generation}, but ${used} was used before`);
      }
      this.#generations.set(key, generation);
      if (now.state === 'expired') violated('generations', `${key} begins as expired in ${generation}`);
    }
    const same = before?.generation === generation ? before : undefined;
    if (same !== undefined) this.#checkSameGeneration(same, now);
    if (now.state !== 'resolved' && now.state !== 'rejected') return;
    const id = `${key}#${generation}`;
    const outcome = contentOf(now);
    const settled = this.#outcomes.get(id);
    if (settled === undefined) this.#outcomes.set(id, { outcome, revision: now.revision });
    else if (settled.outcome !== outcome) {
      violated(
        'settled at most once',
        `${key} in generation ${generation} was "${settled.outcome}" at ${settled.revision}, and "${outcome}" at ${now.revision}`,
      );
    }
  }

  #checkSameGeneration(before: Future, now: Future): void {
    const { key, generation } = now;
    const where = `${key} in generation ${generation} at revision ${now.revision}`;
    if (now.state === 'pending' && before.state !== 'pending') {
      violated('settled at most once', `${where} is pending again, it was ${before.state}`);
    }
    if (now.state === 'expired') {
      if (before.state !== 'resolved' && before.state !== 'rejected') {
        violated('no early expiry', `${where} expired, it was ${before.state}`);
      }
      this.#checkInstant(where, 'its freshness ends', before.expiresAtMs);
    }
    if (before.state === 'expired' && now.state !== 'expired') {
      violated('settled at most once', `${where} is ${now.state} again, it had expired`);
    }
    const byDeadline = now.state === 'rejected' && now.rejection?.code === 'DEADLINE_EXCEEDED';
    if (before.state === 'pending' && byDeadline) {
      this.#checkInstant(where, 'its deadline comes', before.deadlineAtMs);
    }
  }

  #checkInstant(where: string, what: string, atMs: number | undefined): void {
    if (atMs === undefined) violated('no early expiry', `${where} ended by time, but has no such instant`);
    else if (atMs > this.#timeMs) {
      violated('no early expiry', `${where}: ${what} at ${atMs}, cluster time is ${this.#timeMs}`);
    }
  }
}

/** A store fed as a server's loop feeds it: through the bytes of log entries, with indices and time that only grow. */
import type { Change, Operation, WriteResult } from '../../../src/protocol/index.ts';
import { parsePattern, type Pattern } from '../../../src/scopes/index.ts';
import {
  Store,
  decodeLogEntry,
  encodeLogEntry,
  type Applied,
  type Command,
  type CommandBody,
  type CommandResult,
  type StoreOptions,
} from '../../../src/store/index.ts';

export const startMs = 1_800_000_000_000;
export const alice = 'puppet:alice';
export const bob = 'puppet:bob';
export const sessionId = (number: number): string => number.toString(16).padStart(32, '0');

const utf8 = new TextEncoder();
export const bytes = (text: string): Uint8Array => utf8.encode(text);

/** An operation with everything optional left out. */
export const op = {
  declare: (key: string, more: Partial<Extract<Operation, { kind: 'declare' }>> = {}): Operation => ({
    kind: 'declare',
    key,
    preconditions: {},
    renew: false,
    tied: false,
    ...more,
  }),
  resolve: (
    key: string,
    text: string,
    more: Partial<Extract<Operation, { kind: 'resolve' }>> = {},
  ): Operation => ({
    kind: 'resolve',
    key,
    preconditions: {},
    value: bytes(text),
    contentType: 'text/plain',
    sensitive: false,
    supersede: false,
    ...more,
  }),
  reject: (
    key: string,
    code: string,
    more: Partial<Extract<Operation, { kind: 'reject' }>> = {},
  ): Operation => ({
    kind: 'reject',
    key,
    preconditions: {},
    rejection: { code, message: 'because' },
    supersede: false,
    ...more,
  }),
  delete: (key: string, preconditions: Operation['preconditions'] = {}): Operation => ({
    kind: 'delete',
    key,
    preconditions,
  }),
  touch: (key: string, ttlMs: number): Operation => ({ kind: 'touch', key, preconditions: {}, ttlMs }),
};

export const pattern = (text: string): Pattern => {
  const parsed = parsePattern(text);
  if (!parsed.ok) throw new Error(`${text} ${parsed.problem}`);
  return parsed.pattern;
};

export const command = (body: CommandBody, member = 1, run = 1, request = 1): Command => ({
  origin: { member, run, request },
  ...body,
});

export class ClusterOfOne {
  store: Store;
  nowMs = startMs;
  index = 0;
  /** Every entry so far, as it is in the log. */
  readonly log: Uint8Array[] = [];
  readonly #options: StoreOptions;
  #lastRequest = 0;
  readonly #sequences = new Map<string, number>();

  constructor(options: Partial<StoreOptions> = {}) {
    this.#options = { clusterId: 'test', ...options };
    this.store = new Store(this.#options);
    this.open(1, alice);
    this.open(2, bob);
  }

  apply(...commands: Command[]): Applied {
    const entry = encodeLogEntry({ timeMs: this.nowMs, commands });
    this.log.push(entry);
    return this.store.apply(decodeLogEntry(entry), ++this.index);
  }

  one(body: CommandBody, member = 1, run = 1): CommandResult {
    const result = this.apply(command(body, member, run, ++this.#lastRequest)).results[0];
    if (result === undefined) throw new Error('a command has no result');
    return result;
  }

  open(
    session: number,
    principal: string,
    more: { graceMs?: number; resume?: boolean; connection?: number } = {},
  ) {
    const { graceMs = 10_000, resume = false, connection = session } = more;
    return this.one({
      kind: 'session_open',
      session: sessionId(session),
      principal,
      graceMs,
      resume,
      connection,
    });
  }

  detach(session: number, connection = session, member = 1, run = 1): CommandResult {
    return this.one({ kind: 'session_detach', session: sessionId(session), connection }, member, run);
  }

  /** The next write of a session: 1 is alice's, 2 is bob's. */
  nextWrite(
    operations: readonly Operation[],
    session = 1,
    principal = session === 2 ? bob : alice,
  ): CommandBody {
    const id = sessionId(session);
    const sequence = (this.#sequences.get(id) ?? 0) + 1;
    this.#sequences.set(id, sequence);
    return { kind: 'write', session: id, principal, sequence, answeredBelow: sequence, operations };
  }

  try(operations: readonly Operation[] | Operation, session = 1): CommandResult {
    return this.one(
      this.nextWrite(Array.isArray(operations) ? operations : [operations as Operation], session),
    );
  }

  /** Must be written. */
  write(operations: readonly Operation[] | Operation, session = 1): WriteResult {
    const result = this.try(operations, session);
    if (result.kind !== 'written') throw new Error(`not written: ${JSON.stringify(result)}`);
    return result.result;
  }

  /** The code with which it fails. */
  failure(operations: readonly Operation[] | Operation, session = 1): string {
    const result = this.try(operations, session);
    return result.kind === 'failed' ? result.failure.code : result.kind;
  }

  later(ms: number): void {
    this.nowMs += ms;
  }

  /** What the leader does: proposes the expiry of all that is due. */
  sweep(limit = 1000): Change[] {
    const changes: Change[] = [];
    for (;;) {
      const due = this.store.due(this.nowMs, limit);
      if (due.futures.length === 0 && due.sessions.length === 0) return changes;
      changes.push(...this.apply(command({ kind: 'expire', ...due })).changes);
    }
  }

  state(key: string): string {
    const future = this.store.get(key);
    return future === undefined ? 'absent' : `${future.state} ${future.generation}`;
  }

  /** Another store with the same state, through its records. */
  copy(): Store {
    const store = new Store(this.#options);
    store.load(recordsOf(this));
    store.finishLoad();
    return store;
  }

  /** All state writes so far, folded as a disk folds them. */
  readonly disk = new Map<string, Uint8Array>();

  flush(): void {
    for (const { key, value } of this.store.takeStateWrites()) {
      if (value === undefined) this.disk.delete(key);
      else this.disk.set(key, value);
    }
  }
}

export const recordsOf = (cluster: ClusterOfOne): { key: string; value: Uint8Array }[] => {
  cluster.flush();
  return [...cluster.disk].map(([key, value]) => ({ key, value })).sort((a, b) => (a.key < b.key ? -1 : 1));
};

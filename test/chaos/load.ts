/**
 * The load on a cluster under faults: real clients that write, read, await and subscribe, and write down what they
 * asked and what they were told.
 */
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, FuturestoreError, loadProfile, textOf } from '../../src/client/index.ts';
import type { Client, Future, OperationResult } from '../../src/client/index.ts';
import type {
  HistoryError,
  HistoryOperation,
  HistorySeen,
  HistoryWrite,
  HistoryWritten,
} from '../../src/simulation/checks/index.ts';
import { seededRandom } from '../raft/support/random.ts';
import { Feed } from './feed.ts';
import { drawWrite, KeySpace } from './workload.ts';

export interface LoadOptions {
  /** The administrator's profile. */
  readonly profile: string;
  readonly clients: number;
  readonly seed: number;
}

export interface LoadProgress {
  /** Answers so far, of writes and reads. */
  readonly answered: number;
  /** When the last acknowledged write was called and answered, in milliseconds since 1970. */
  readonly lastAcknowledged: { readonly callMs: number; readonly returnMs: number };
  /** The longest time without an acknowledged write. */
  readonly longestOutageMs: number;
}

export interface LoadReport {
  readonly history: readonly HistoryOperation[];
  /** Of the futures that are written once: key → value. */
  readonly acknowledged: readonly (readonly [string, string])[];
  readonly awaitsMade: number;
  readonly awaitsEnded: number;
  readonly pushes: number;
  readonly resets: number;
  readonly reconnects: number;
  /** What must not be, in words. */
  readonly violations: readonly string[];
}

/** Milliseconds since 1970 that never jump. */
export const nowMs = (): number => performance.timeOrigin + performance.now();

/** Long enough to outlive most faults, short enough that operations of unknown outcome come about. */
const operationTimeoutMs = 4_000;
/** For what must be acknowledged in the end: longer than any run waits for the cluster to be healed. */
const patientTimeoutMs = 120_000;
/** After the faults are healed, everything that is owed must come within this time. */
const settleTimeoutMs = 30_000;
/** The longest TTL of the workload and what the cluster may need to sweep. */
const expirySettledMs = 4_000;

/** Errors that say for certain that nothing happened, and are among what the workload provokes. */
const expectedErrors: ReadonlySet<string> = new Set([
  'ALREADY_SETTLED',
  'PRECONDITION_FAILED',
  'NOT_FOUND',
  'NO_VALUE',
]);

/** A write of which nobody can say whether it happened. */
const unknownOutcomes: ReadonlySet<string> = new Set(['OUTCOME_UNKNOWN', 'CONNECTION_CLOSED', 'CANCELLED']);

/** `never`: it is certain that nothing was sent, so there is nothing to be judged. */
const outcomeOfError = (error: unknown): HistoryError | 'unknown' | 'never' => {
  if (!(error instanceof FuturestoreError)) throw error;
  if ('mayHaveHappened' in error) return error.mayHaveHappened === true ? 'unknown' : 'never';
  if (unknownOutcomes.has(error.code)) return 'unknown';
  if (expectedErrors.has(error.code)) return { error: error.code };
  throw error;
};

const seenOf = (future: Future | undefined): HistorySeen => {
  if (future === undefined) return { state: 'absent' };
  const { state, generation, revision, value, rejection, expiresAtMs, deadlineAtMs } = future;
  return {
    state,
    generation,
    revision,
    ...(value === undefined ? {} : { value: Buffer.from(value).toString() }),
    ...(rejection === undefined ? {} : { code: rejection.code }),
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
    ...(deadlineAtMs === undefined ? {} : { deadlineAtMs }),
  };
};

const writtenOf = ({ generation, state, revision, unchanged }: OperationResult): HistoryWritten => ({
  generation,
  state,
  revision,
  unchanged,
});

const request = (client: Client, write: HistoryWrite, timeoutMs: number): Promise<OperationResult> => {
  const { key, value = '', ttlMs = 0, code = 'REJECTED', kind, key: _key, ...rest } = write;
  const options = { ...rest, ...(write.ttlMs === undefined ? {} : { ttlMs }), timeoutMs };
  switch (kind) {
    case 'declare':
      return client.declare(key, options);
    case 'resolve':
      return client.resolve(key, value, options);
    case 'reject':
      return client.reject(key, { ...options, code });
    case 'delete':
      return client.delete(key, options);
    case 'touch':
      return client.touch(key, ttlMs, options);
    default:
      return kind satisfies never;
  }
};

/** Runs until `stop`. */
export class Load {
  readonly #options: LoadOptions;
  readonly #random: () => number;
  readonly #clients: Client[] = [];
  readonly #feeds: Feed[] = [];
  readonly #lanes: Promise<void>[] = [];
  readonly #awaits = new Map<string, Promise<void>>();
  readonly #history: HistoryOperation[] = [];
  readonly #acknowledged: [string, string][] = [];
  readonly #violations: string[] = [];
  readonly #keys: KeySpace;
  #awaitsMade = 0;
  #awaitsEnded = 0;
  #answered = 0;
  #reconnects = 0;
  #lastAcknowledged: { callMs: number; returnMs: number };
  #longestOutageMs = 0;
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#keys = new KeySpace(nowMs());
    const startedMs = nowMs();
    this.#lastAcknowledged = { callMs: startedMs, returnMs: startedMs };
    const profile = loadProfile(options.profile);
    for (let client = 1; client <= options.clients; client += 1) this.#startClient(client, profile);
  }

  get progress(): LoadProgress {
    return {
      answered: this.#answered,
      lastAcknowledged: this.#lastAcknowledged,
      longestOutageMs: this.#longestOutageMs,
    };
  }

  /** Ends the load, once the cluster is healed: waits for what is owed, and tells all. */
  async stop(): Promise<LoadReport> {
    this.#stopping = true;
    await this.#within('all requests end', Promise.all(this.#lanes));
    await this.#within('all awaits end', Promise.all(this.#awaits.values()));
    for (const key of this.#awaits.keys()) this.#violations.push(`the await of ${key} never ended`);
    await this.#checkFeeds();
    await Promise.all(this.#clients.map((client) => client.close()));
    return {
      history: this.#history,
      acknowledged: this.#acknowledged,
      awaitsMade: this.#awaitsMade,
      awaitsEnded: this.#awaitsEnded,
      pushes: this.#feeds.reduce((sum, feed) => sum + feed.pushes, 0),
      resets: this.#feeds.reduce((sum, feed) => sum + feed.resets, 0),
      reconnects: this.#reconnects,
      violations: this.#violations,
    };
  }

  #startClient(number: number, profile: ReturnType<typeof loadProfile>): void {
    let connections = 0;
    const client = connect({
      ...profile,
      name: `chaos-${number}`,
      connectTimeoutMs: 2_000,
      sessionGraceMs: 600_000,
      onStateChange: (state) => {
        if (state.kind !== 'connected') return;
        connections += 1;
        if (connections > 1) this.#reconnects += 1;
      },
    });
    this.#clients.push(client);
    const feed = new Feed(client.subscribe('chaos/**'));
    this.#feeds.push(feed);
    this.#lanes.push(
      this.#guarded(() => this.#mixedLane(client, number * 10 + 1)),
      this.#guarded(() => this.#mixedLane(client, number * 10 + 2)),
      this.#guarded(() => this.#onceLane(client, number * 10 + 3)),
      this.#guarded(() => this.#awaitLane(client, number * 10 + 4)),
    );
  }

  /** What nobody expected is told at the end, and ends the lane. */
  async #guarded(lane: () => Promise<void>): Promise<void> {
    try {
      await lane();
    } catch (error) {
      this.#violations.push(`a client got what it must not get: ${String(error)}`);
    }
  }

  async #within(what: string, promise: Promise<unknown>): Promise<void> {
    const ended = await Promise.race([
      promise.then(() => true),
      sleep(settleTimeoutMs, false, { ref: false }),
    ]);
    if (!ended) this.#violations.push(`${what}: not within ${settleTimeoutMs} ms of the end of the load`);
  }

  #acknowledge(callMs: number, returnMs: number): void {
    this.#longestOutageMs = Math.max(this.#longestOutageMs, returnMs - this.#lastAcknowledged.returnMs);
    this.#lastAcknowledged = { callMs, returnMs };
  }

  #pause(): Promise<void> {
    return sleep(2 + this.#random() * 25);
  }

  /** Writes and reads of keys that all clients fight for. */
  async #mixedLane(client: Client, lane: number): Promise<void> {
    for (let number = 1; !this.#stopping; number += 1) {
      const kind = this.#random();
      if (kind < 0.3) await this.#get(client, lane);
      else if (kind < 0.36) await this.#batch(client, lane, number);
      else await this.#write(client, lane, number);
      this.#answered += 1;
      await this.#pause();
    }
  }

  async #get(client: Client, lane: number): Promise<void> {
    const key = this.#keys.draw(this.#random, nowMs());
    const callMs = nowMs();
    try {
      const output = seenOf(await client.get(key, { timeoutMs: operationTimeoutMs }));
      this.#keys.saw(key, output);
      this.#history.push({ client: lane, kind: 'get', key, output, callMs, returnMs: nowMs() });
    } catch (error) {
      // A read that was not answered says nothing.
      outcomeOfError(error);
    }
  }

  async #write(client: Client, lane: number, number: number): Promise<void> {
    const key = this.#keys.draw(this.#random, nowMs());
    const input = drawWrite(this.#random, key, `${lane}.${number}`, this.#keys.last(key));
    const callMs = nowMs();
    const base = { client: lane, kind: input.kind, key, input, callMs } as const;
    try {
      const output = writtenOf(await request(client, input, operationTimeoutMs));
      const returnMs = nowMs();
      this.#keys.saw(key, output);
      this.#acknowledge(callMs, returnMs);
      this.#history.push({ ...base, output, returnMs });
    } catch (error) {
      const output = outcomeOfError(error);
      if (output === 'unknown') this.#history.push({ ...base, output });
      else if (output !== 'never') this.#history.push({ ...base, output, returnMs: nowMs() });
    }
  }

  async #batch(client: Client, lane: number, number: number): Promise<void> {
    const keys = new Set([1, 2, 3].map(() => this.#keys.draw(this.#random, nowMs())));
    if (keys.size < 2) return;
    const input = [...keys].map((key, index): HistoryWrite => ({
      kind: 'resolve',
      key,
      value: `${lane}.${number}.${index}`,
      supersede: true,
    }));
    const callMs = nowMs();
    const base = { client: lane, kind: 'batch', input, callMs } as const;
    try {
      const result = await client.batch(
        (batch) => {
          for (const { key, value = '' } of input) batch.resolve(key, value, { supersede: true });
        },
        { timeoutMs: operationTimeoutMs },
      );
      const returnMs = nowMs();
      this.#acknowledge(callMs, returnMs);
      this.#history.push({ ...base, output: result.results.map(writtenOf), returnMs });
    } catch (error) {
      const output = outcomeOfError(error);
      if (output === 'unknown') this.#history.push({ ...base, output });
      else if (output !== 'never') this.#history.push({ ...base, output, returnMs: nowMs() });
    }
  }

  /** Futures that are written once and must be there for ever. Now and then a large one, so that logs are compacted. */
  async #onceLane(client: Client, lane: number): Promise<void> {
    for (let number = 1; !this.#stopping; number += 1) {
      const key = `once/${lane}/${number}`;
      const value = this.#random() < 0.1 ? key.padEnd(16_384, '.') : key;
      const callMs = nowMs();
      const result = await client.resolve(key, value, { timeoutMs: patientTimeoutMs });
      const returnMs = nowMs();
      this.#acknowledge(callMs, returnMs);
      this.#answered += 1;
      this.#acknowledged.push([key, value]);
      if (result.generation !== 1 || result.unchanged) {
        this.#violations.push(`${key} was written once, but happened twice: ${JSON.stringify(result)}`);
      }
      await this.#pause();
    }
  }

  /** Waits of one client for what another one gives, before or after. */
  async #awaitLane(client: Client, lane: number): Promise<void> {
    const awaitsMax = 20;
    for (let number = 1; !this.#stopping; number += 1) {
      const key = `await/${lane}/${number}`;
      if (this.#awaits.size < awaitsMax * this.#options.clients) {
        this.#awaitsMade += 1;
        this.#awaits.set(key, this.#await(client, key));
      }
      await sleep(this.#random() * 100);
      const producer = this.#clients[Math.floor(this.#random() * this.#clients.length)];
      assert(producer, 'there are clients');
      const callMs = nowMs();
      await producer.resolve(key, `for ${key}`, { timeoutMs: patientTimeoutMs });
      this.#acknowledge(callMs, nowMs());
      this.#answered += 1;
    }
  }

  async #await(client: Client, key: string): Promise<void> {
    try {
      const future = await client.await(key);
      const value = textOf(future);
      if (value !== `for ${key}`) this.#violations.push(`the await of ${key} was given ${value}`);
      this.#awaitsEnded += 1;
    } catch (error) {
      this.#violations.push(`the await of ${key} failed: ${String(error)}`);
    }
    this.#awaits.delete(key);
  }

  /** Every subscription has, in the end, each key's latest state. */
  async #checkFeeds(): Promise<void> {
    const [client] = this.#clients;
    assert(client, 'there are clients');
    await sleep(expirySettledMs);
    const end = 'chaos/end';
    try {
      const { revision } = await client.resolve(end, 'end', { timeoutMs: settleTimeoutMs });
      const present = new Map<string, Future>();
      for await (const future of client.listAll('chaos/**', { timeoutMs: settleTimeoutMs })) {
        present.set(future.key, future);
      }
      for (const [index, feed] of this.#feeds.entries()) {
        const problems = await feed.compare(present, revision, settleTimeoutMs);
        this.#violations.push(...problems.map((problem) => `subscription ${index + 1}: ${problem}`));
      }
    } catch (error) {
      this.#violations.push(`the healed cluster does not serve: ${String(error)}`);
    }
  }
}

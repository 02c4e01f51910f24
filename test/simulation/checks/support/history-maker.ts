/** Histories that are right by construction: a store is asked one operation after the other, clients overlap. */
import type { Operation, Preconditions } from '../../../../src/protocol/index.ts';
import type {
  HistoryError,
  HistoryOperation,
  HistorySeen,
  HistoryWrite,
  HistoryWritten,
} from '../../../../src/simulation/checks/index.ts';
import { Store, type CommandBody, type CommandResult } from '../../../../src/store/index.ts';

const session = '00112233445566778899aabbccddeeff';
const principal = 'test:writer';

/** Mulberry32. */
export const seededRandom = (seed: number): (() => number) => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
};

export interface HistoryOptions {
  readonly operations: number;
  readonly keys: number;
  /** How many operations overlap, about. */
  readonly overlap?: number;
  /** Of answers that are lost, and of those writes half never happen. */
  readonly lost?: number;
  readonly times?: boolean;
}

const operationOf = (write: HistoryWrite): Operation => {
  const { ifRevision, ifGeneration, ifAbsent, ttlMs, deadlineMs, key } = write;
  const preconditions: Preconditions = {
    ...(ifRevision === undefined ? {} : { ifRevision }),
    ...(ifGeneration === undefined ? {} : { ifGeneration }),
    ...(ifAbsent === undefined ? {} : { ifAbsent }),
  };
  const ttl = ttlMs === undefined ? {} : { ttlMs };
  const { renew = false, supersede = false, tied = false, value = '', code = 'REJECTED' } = write;
  switch (write.kind) {
    case 'declare':
      return {
        kind: 'declare',
        key,
        preconditions,
        renew,
        tied,
        ...(deadlineMs === undefined ? {} : { deadlineMs }),
      };
    case 'resolve':
      return {
        kind: 'resolve',
        key,
        preconditions,
        value: Buffer.from(value),
        contentType: 'text/plain',
        sensitive: false,
        supersede,
        ...ttl,
      };
    case 'reject':
      return { kind: 'reject', key, preconditions, rejection: { code, message: '' }, supersede, ...ttl };
    case 'delete':
      return { kind: 'delete', key, preconditions };
    case 'touch':
      return { kind: 'touch', key, preconditions, ttlMs: ttlMs ?? 1 };
    default:
      return write.kind satisfies never;
  }
};

export class HistoryMaker {
  readonly #random: () => number;
  readonly #options: Required<HistoryOptions>;
  readonly #store = new Store({ clusterId: 'test' });
  readonly operations: HistoryOperation[] = [];
  #index = 0;
  #sequence = 0;
  #nowMs = 1000;

  constructor(seed: number, options: HistoryOptions) {
    this.#random = seededRandom(seed);
    this.#options = { overlap: 4, lost: 0.05, times: true, ...options };
    this.#apply({ kind: 'session_open', session, principal, graceMs: 10_000, resume: false, connection: 1 });
  }

  static make(seed: number, options: HistoryOptions): HistoryOperation[] {
    const maker = new HistoryMaker(seed, options);
    for (let i = 0; i < options.operations; i += 1) maker.#next();
    return maker.operations.sort((a, b) => a.callMs - b.callMs);
  }

  #apply(body: CommandBody): CommandResult {
    this.#index += 1;
    const commands = [{ ...body, origin: { member: 1, run: 1, request: this.#index } }];
    const [result] = this.#store.apply({ timeMs: this.#nowMs, commands }, this.#index).results;
    if (result === undefined) throw new Error('a command without a result');
    return result;
  }

  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  #key(): string {
    return `k/${this.#below(this.#options.keys)}`;
  }

  #write(key: string): HistoryWrite {
    const { times } = this.#options;
    const present = this.#store.get(key);
    const chance = this.#random();
    const conditions =
      chance < 0.1
        ? { ifRevision: present?.revision ?? 1 }
        : chance < 0.15
          ? { ifGeneration: 1 + this.#below(3) }
          : chance < 0.2
            ? { ifAbsent: true }
            : {};
    const ttl = times && this.#random() < 0.3 ? { ttlMs: 1 + this.#below(60) } : {};
    const supersede = this.#random() < 0.5 ? { supersede: true } : {};
    switch (this.#below(8)) {
      case 0:
      case 1: {
        const deadline = times && this.#random() < 0.3 ? { deadlineMs: 1 + this.#below(60) } : {};
        return { kind: 'declare', key, ...conditions, ...deadline, renew: this.#random() < 0.5 };
      }
      case 2:
        return { kind: 'reject', key, ...conditions, ...ttl, ...supersede, code: `E${this.#below(3)}` };
      case 3:
        return { kind: 'delete', key, ...conditions };
      case 4:
        return times
          ? { kind: 'touch', key, ...conditions, ttlMs: 1 + this.#below(60) }
          : { kind: 'delete', key };
      default: {
        const value = this.#random() < 0.1 ? 'same' : `v${this.operations.length}`;
        return { kind: 'resolve', key, ...conditions, ...ttl, ...supersede, value };
      }
    }
  }

  #perform(writes: readonly HistoryWrite[]): readonly HistoryWritten[] | HistoryError {
    this.#sequence += 1;
    const result = this.#apply({
      kind: 'write',
      session,
      principal,
      sequence: this.#sequence,
      answeredBelow: this.#sequence,
      operations: writes.map(operationOf),
    });
    if (result.kind === 'written') return result.result.results;
    return { error: result.kind === 'failed' ? result.failure.code : 'INTERNAL' };
  }

  #read(key: string): HistorySeen {
    const present = this.#store.get(key);
    if (present === undefined) return { state: 'absent' };
    const { generation, revision, state, value, rejection } = this.#store.fresh(present, this.#nowMs);
    return {
      state,
      generation,
      revision,
      ...(value === undefined ? {} : { value: Buffer.from(value).toString() }),
      ...(rejection === undefined ? {} : { code: rejection.code }),
    };
  }

  #next(): void {
    this.#nowMs += 1 + this.#below(4);
    if (this.#random() < 0.3) {
      const due = this.#store.due(this.#nowMs, 100);
      if (due.futures.length > 0) this.#apply({ kind: 'expire', ...due });
    }
    const { overlap, lost } = this.#options;
    const callMs = this.#nowMs - this.#below(3 * overlap);
    const returnMs = this.#nowMs + this.#below(3 * overlap);
    const client = this.#below(overlap);
    const isLost = this.#random() < lost;
    const happens = !isLost || this.#random() < 0.5;
    const asked = isLost ? { client, callMs } : { client, callMs, returnMs };
    const kind = this.#random();
    if (kind < 0.4) {
      const key = this.#key();
      const seen = this.#read(key);
      this.operations.push({ ...asked, kind: 'get', key, output: isLost ? 'unknown' : seen });
      return;
    }
    if (kind < 0.5) {
      const keys = new Set([this.#key(), this.#key(), this.#key()]);
      const input = [...keys].map((key) => this.#write(key));
      const output = happens ? this.#perform(input) : 'unknown';
      this.operations.push({ ...asked, kind: 'batch', input, output: isLost ? 'unknown' : output });
      return;
    }
    const key = this.#key();
    const input = this.#write(key);
    const output = happens ? this.#perform([input]) : 'unknown';
    const told = output === 'unknown' || 'error' in output ? output : (output[0] ?? 'unknown');
    this.operations.push({ ...asked, kind: input.kind, key, input, output: isLost ? 'unknown' : told });
  }
}

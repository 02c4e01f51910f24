import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Feed, type FeedEvent } from '../../src/feed/index.ts';
import type { Change, Future, SubscriptionStart } from '../../src/protocol/index.ts';
import { type Edit, FakeSource } from './support/fake-source.ts';
import { encodeForTest, Reader, type Saved } from './support/reader.ts';

const keys = ['a/1', 'a/2', 'a/10', 'a/1/x', 'b/1', 'b/2', 'c', 'a'];
const scopes = [['**'], ['a/*'], ['a/**', 'a/1', '*/1'], ['a/1', 'c'], ['b/*', 'c'], ['nothing/**']];
const connections = 3;

type Step =
  | { readonly kind: 'write'; readonly together: boolean; readonly edits: readonly (readonly [string, number, number])[] }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'sweep' }
  | { readonly kind: 'forget'; readonly keep: number }
  | { readonly kind: 'subscribe'; readonly server: number; readonly connection: number; readonly scope: number; readonly start: number }
  | { readonly kind: 'await'; readonly server: number; readonly connection: number; readonly alternatives: string[][]; readonly least: number }
  | { readonly kind: 'cancel'; readonly pick: number }
  | { readonly kind: 'close'; readonly server: number; readonly connection: number }
  | { readonly kind: 'take'; readonly server: number; readonly visits: number }
  | { readonly kind: 'deliver'; readonly server: number; readonly connection: number; readonly part: number }
  | { readonly kind: 'jump'; readonly writes: readonly (readonly [string, number, number])[] }; // prettier-ignore

const edit = fc.tuple(fc.constantFrom(...keys), fc.nat(5), fc.nat(60));
const server = fc.nat(1);
const connection = fc.nat(connections - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      together: fc.boolean(),
      edits: fc.array(edit, { maxLength: 4 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 20 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('sweep' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), keep: fc.nat(8) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('subscribe' as const),
      server,
      connection,
      scope: fc.nat(scopes.length - 1),
      start: fc.nat(100),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('await' as const),
      server,
      connection,
      alternatives: fc.array(fc.array(fc.constantFrom(...keys), { minLength: 1, maxLength: 3 }), {
        minLength: 1,
        maxLength: 3,
      }),
      least: fc.nat(2),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('cancel' as const), pick: fc.nat(1000) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('close' as const), server, connection }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('take' as const),
      server,
      visits: fc.oneof(fc.integer({ min: 1, max: 10 }), fc.constant(1000)),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('deliver' as const),
      server,
      connection,
      part: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('jump' as const), writes: fc.array(edit, { maxLength: 5 }) }),
  },
);

interface WaitModel {
  readonly alternatives: readonly (readonly string[])[];
  readonly least: number;
}

/** How an await ends, as plainly as can be. */
const naiveVerdict = ({ alternatives, least }: WaitModel, source: FakeSource, nowMs: number): unknown => {
  const shown = (key: string): Future | undefined => {
    const present = source.peek(key);
    return present && source.fresh(present, nowMs);
  };
  const counts = (key: string, state: string): boolean => {
    const future = shown(key);
    return future !== undefined && future.state === state && future.generation >= least;
  };
  for (const [alternative, names] of alternatives.entries()) {
    if (names.every((key) => counts(key, 'resolved'))) {
      return { kind: 'awaited', alternative, futures: names.map(shown) };
    }
  }
  for (const [alternative, names] of alternatives.entries()) {
    const rejected = names.find((key) => counts(key, 'rejected'));
    if (rejected !== undefined) return { kind: 'awaited', alternative, futures: [shown(rejected)] };
  }
  return undefined;
};

/** A feed with its clients. */
class ServerModel {
  feed: Feed;
  readonly readers = new Map<string, Reader>();
  readonly waits = new Map<string, WaitModel>();
  readonly outstanding = new Map<number, number>();
  answered = 0;

  constructor(source: FakeSource, windowBytes: number) {
    this.feed = new Feed({
      source,
      encode: encodeForTest,
      windowBytes,
      encodingsBytesMax: 2000,
      // Where there is much room there is little time.
      admissionsPerTurn: windowBytes > 1000 ? 3 : 1000,
    });
  }

  take(source: FakeSource, nowMs: number, visits: number, save: (saved: Saved) => void): FeedEvent[] {
    const events = this.feed.take(nowMs, visits);
    for (const event of events) {
      const request = event.kind === 'answer' ? event.request : event.subscription;
      const id = `${event.connection} ${request}`;
      const wait = this.waits.get(id);
      if (wait !== undefined) {
        expect(event.kind === 'answer' && event.body).toEqual(naiveVerdict(wait, source, nowMs));
        this.waits.delete(id);
        this.answered += 1;
        continue;
      }
      const reader = this.readers.get(id);
      expect(reader, 'nothing comes of what is over').toBeDefined();
      reader?.receive(event, nowMs);
      const saved = reader?.save();
      if (saved !== undefined) save(saved);
      if (event.kind === 'push') {
        this.outstanding.set(event.connection, (this.outstanding.get(event.connection) ?? 0) + event.bytes);
      }
      if (event.kind === 'ended') this.readers.delete(id);
    }
    if (!this.feed.pending) this.#settled(source, nowMs);
    return events;
  }

  /** Nothing is pending: every wait that could be answered was, and who is not behind has all. */
  #settled(source: FakeSource, nowMs: number): void {
    for (const wait of this.waits.values()) expect(naiveVerdict(wait, source, nowMs)).toBeUndefined();
    for (const [id, reader] of this.readers) {
      const at = this.feed.progress(1, Number(id.split(' ')[0]));
      if (at === undefined) continue;
      expect(at).toBe(source.revision);
      expect(reader.caughtUp).toBe(1);
      reader.holdsUpTo(at);
    }
    for (let connection = 0; connection < connections; connection += 1) {
      if ((this.outstanding.get(connection) ?? 0) === 0) expect(this.feed.behind(1, connection)).toBe(false);
    }
  }

  deliver(connection: number, part: number): void {
    const outstanding = this.outstanding.get(connection) ?? 0;
    const bytes = Math.ceil(outstanding / part);
    if (bytes === 0) return;
    this.outstanding.set(connection, outstanding - bytes);
    this.feed.delivered(1, connection, bytes);
  }

  close(connection: number): void {
    this.feed.closed(1, connection);
    this.outstanding.delete(connection);
    for (const map of [this.readers, this.waits]) {
      for (const id of map.keys()) if (id.startsWith(`${connection} `)) map.delete(id);
    }
  }

  checkCounts(): void {
    expect(this.feed.counts.waits).toBe(this.waits.size);
    expect(this.feed.counts.subscriptions).toBeLessThanOrEqual(this.readers.size);
    const waiting = [...this.waits.values()].flatMap(({ alternatives }) => alternatives.flat());
    expect(this.feed.counts.waitingKeys).toBeLessThanOrEqual(new Set(waiting).size);
  }
}

class World {
  source = new FakeSource();
  nowMs = 0;
  readonly servers: readonly ServerModel[];
  readonly saved: Saved[] = [];
  #requests = 0;
  #applied: Change[] = [];

  constructor(windowBytes: number, cutsRevisions: boolean) {
    this.source.cutsRevisions = cutsRevisions;
    this.servers = [new ServerModel(this.source, windowBytes), new ServerModel(this.source, windowBytes)];
  }

  server(number: number): ServerModel {
    const server = this.servers[number];
    if (server === undefined) throw new Error(`no server ${number}`);
    return server;
  }

  edits(raw: readonly (readonly [string, number, number])[]): Edit[] {
    return raw.map(([key, kind, amount]): Edit => {
      const expires = { expiresAtMs: this.nowMs + 1 + (amount % 30) };
      if (kind === 0) return { key, kind: 'delete' };
      if (kind === 1) return { key, kind: 'pending' };
      if (kind === 2) return { key, kind: 'rejected', ...(amount % 2 === 0 ? expires : {}) };
      const value = 'x'.repeat(amount);
      const generation = 1 + (amount % 3);
      return { key, kind: 'resolved', value, generation, ...(kind === 3 ? expires : {}) };
    });
  }

  run(step: Step): void {
    switch (step.kind) {
      case 'write':
        this.#applied.push(...this.source.commit(...this.edits(step.edits)));
        if (!step.together) this.route();
        return;
      case 'wait':
        this.nowMs += step.ms;
        return;
      case 'sweep':
        this.#applied.push(...this.source.sweep(this.nowMs));
        this.route();
        return;
      case 'forget':
        this.source.forget(this.source.revision - step.keep);
        return;
      case 'subscribe':
        this.subscribe(step);
        return;
      case 'await': {
        this.#requests += 1;
        const { alternatives, least, connection } = step;
        const server = this.server(step.server);
        server.waits.set(`${connection} ${this.#requests}`, { alternatives, least });
        server.feed.await(
          { gateway: 1, connection, request: this.#requests, alternatives, leastGeneration: least },
          this.nowMs,
        );
        return;
      }
      case 'cancel':
        this.cancel(step.pick);
        return;
      case 'close':
        this.server(step.server).close(step.connection);
        return;
      case 'take':
        this.take(step.server, step.visits);
        return;
      case 'deliver':
        this.server(step.server).deliver(step.connection, step.part);
        return;
      case 'jump': {
        this.route();
        this.source = this.source.copy();
        for (const raw of step.writes) this.source.commit(...this.edits([raw]));
        for (const { feed } of this.servers) feed.replaceSource(this.source);
        return;
      }
      default:
        return step satisfies never;
    }
  }

  /** What was applied together is routed together. */
  route(): void {
    const changes = this.#applied;
    this.#applied = [];
    for (const { feed } of this.servers) feed.changed(changes, this.nowMs);
  }

  take(server: number, visits: number): void {
    this.route();
    this.server(server).take(this.source, this.nowMs, visits, (saved) => this.saved.push(saved));
  }

  /** The present state, only what is new, another cluster's position, or any position anyone ever had, anywhere. */
  subscribe({ server, connection, scope, start: pick }: Extract<Step, { kind: 'subscribe' }>): void {
    this.#requests += 1;
    const request = this.#requests;
    let patterns: readonly string[] = scopes[scope] ?? [];
    let start: SubscriptionStart = { kind: 'present_state' };
    let from: Saved | undefined;
    if (pick < 10) start = { kind: 'only_new' };
    else if (pick < 20)
      start = { kind: 'after', position: { clusterId: 'foreign', epoch: 1, revision: pick } };
    else if (pick < 80) {
      from = this.saved[(pick * 7919 + request) % Math.max(1, this.saved.length)];
      if (from !== undefined) start = { kind: 'after', position: from.position };
      patterns = from?.patterns ?? patterns;
    }
    const reader = new Reader(patterns, () => this.source, {
      onlyNew: start.kind === 'only_new',
      ...(from === undefined ? {} : { from }),
    });
    const target = this.server(server);
    target.readers.set(`${connection} ${request}`, reader);
    target.feed.subscribe({ gateway: 1, connection, request, patterns, start });
  }

  cancel(pick: number): void {
    const server = this.server(pick % 2);
    const ids = [...server.readers.keys(), ...server.waits.keys()];
    const id = ids[pick % Math.max(1, ids.length)];
    if (id === undefined) return;
    const [connection, request] = id.split(' ').map(Number);
    server.feed.cancel(1, connection ?? 0, request ?? 0);
    server.readers.delete(id);
    server.waits.delete(id);
  }

  /** Everybody takes everything: then all are caught up. */
  settle(): void {
    for (const [number, server] of this.servers.entries()) {
      for (let turn = 0; turn < 10_000; turn += 1) {
        this.take(number, 50);
        for (let connection = 0; connection < connections; connection += 1) server.deliver(connection, 1);
        const behind = [0, 1, 2].some((connection) => server.feed.behind(1, connection));
        if (!server.feed.pending && !behind) break;
        expect(turn).toBeLessThan(9_999);
      }
      server.checkCounts();
      for (const reader of server.readers.values()) {
        expect(reader.caughtUp).toBe(1);
        reader.holdsUpTo(this.source.revision);
      }
    }
  }
}

describe('against a naive model', () => {
  test('every await ends as it should, and every subscription has each latest state, in order, without gap or repeat', () => {
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 20, maxLength: 120, size: 'max' }),
        fc.constantFrom(1, 60, 200, 5000),
        fc.boolean(),
        (steps, windowBytes, cutsRevisions) => {
          const world = new World(windowBytes, cutsRevisions);
          for (const step of steps) {
            world.run(step);
            for (const server of world.servers) server.checkCounts();
          }
          world.settle();
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);
});

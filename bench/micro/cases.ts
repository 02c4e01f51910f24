/** What is measured by itself: one call of each does so many operations. */
import type { Operation } from '../../src/protocol/index.ts';
import type { Message, Raft } from '../../src/raft/index.ts';
import type { LogEntry } from '../../src/store/index.ts';
import { keyOf, value } from '../load/operations.ts';
import type { Modules } from './modules.ts';

export interface MicroCase {
  readonly name: string;
  /** Of one call. */
  readonly operations: number;
  /** Gives the function that is called again and again. */
  readonly make: (modules: Modules) => () => unknown;
}

const perFrame = 16;
const valueBytes = Buffer.from(value);

const resolveOf = (key: string): Operation => ({
  key,
  preconditions: { ifAbsent: false },
  kind: 'resolve',
  value: valueBytes,
  contentType: 'text/plain; charset=utf-8',
  sensitive: false,
  supersede: true,
});

const frameOf = (first: number) => ({
  requests: Array.from({ length: perFrame }, (_, index) => ({
    id: first + index + 1,
    body: {
      kind: 'write' as const,
      sequence: first + index + 1,
      answeredBelow: 1,
      operations: [resolveOf(keyOf('micro', first + index, 0))],
    },
  })),
});

const answersOf = (first: number) => ({
  pushes: [],
  answers: Array.from({ length: perFrame }, (_, index) => ({
    id: first + index + 1,
    body: {
      kind: 'written' as const,
      result: {
        revision: first + index,
        results: [{ generation: 1, state: 'resolved' as const, revision: first + index, unchanged: false }],
      },
    },
  })),
});

const session = '00112233445566778899aabbccddeeff';
const perEntry = 16;

/** As a leader would put it into the log: writes of one session, to some thousand keys in turn. */
const entryOf = (number: number): LogEntry => ({
  timeMs: 1_700_000_000_000 + number,
  commands: Array.from({ length: perEntry }, (_, index) => {
    const sequence = number * perEntry + index + 1;
    return {
      origin: { member: 1, run: 1, request: sequence },
      kind: 'write' as const,
      session,
      principal: 'puppet:web1.example.com',
      sequence,
      answeredBelow: sequence,
      operations: [resolveOf(keyOf('micro', sequence % 5000, 0))],
    };
  }),
});

const openEntry: LogEntry = {
  timeMs: 1_700_000_000_000,
  commands: [
    {
      origin: { member: 1, run: 1, request: 0 },
      kind: 'session_open',
      session,
      principal: 'puppet:web1.example.com',
      graceMs: 30_000,
      resume: false,
      connection: 1,
    },
  ],
};

/** Three of them, whose messages arrive at once and whose disks answer at once. */
class ThreeRafts {
  readonly #raft: Modules['raft'];
  readonly #rafts: readonly Raft[];
  readonly #payload = new Uint8Array(4096);
  #tokens = 0;

  constructor(raft: Modules['raft']) {
    this.#raft = raft;
    const configuration = raft.initialConfiguration([1, 2, 3]);
    const none = raft.asLogIndex(0);
    const term = raft.asTerm(0);
    this.#rafts = [1, 2, 3].map(
      (id) =>
        new raft.Raft({
          id: raft.asMemberId(id),
          hardState: { term, vote: undefined, commit: none },
          snapshot: { index: none, term, configuration },
          entries: [],
          applied: none,
          random: () => 0.5,
        }),
    );
    this.#rafts[0]?.step({ kind: 'campaign' });
    this.#settle();
  }

  /** One entry of 4 KiB, until all three have applied it. */
  propose(): void {
    this.#tokens += 1;
    const leader = this.#rafts[0];
    leader?.step({ kind: 'propose', proposals: [{ token: this.#tokens, payload: this.#payload }] });
    this.#settle();
    if (this.#tokens % 1000 !== 0) return;
    for (const raft of this.#rafts) {
      const applied = raft.status().applied;
      raft.step({ kind: 'compact', index: this.#raft.asLogIndex(applied - 1) });
    }
    this.#settle();
  }

  #settle(): void {
    for (let busy = true; busy;) {
      busy = false;
      for (const raft of this.#rafts) {
        const ready = raft.ready();
        if (ready === undefined) continue;
        busy = true;
        this.#carry(ready.send);
        if (ready.persist !== undefined) {
          raft.step({ kind: 'persisted', sequence: ready.persist.sequence });
          this.#carry(ready.persist.afterDurable);
        }
        const last = ready.apply?.entries.at(-1);
        if (last !== undefined) raft.step({ kind: 'applied', index: last.index });
      }
    }
  }

  #carry(messages: readonly Message[]): void {
    for (const message of messages) this.#rafts[message.to - 1]?.step({ kind: 'message', message });
  }
}

const timers = 1000;
const agents = 1000;

export const microCases: readonly MicroCase[] = [
  {
    name: 'codec: a request encoded',
    operations: perFrame,
    make: ({ protocol }) => {
      const frame = frameOf(0);
      return () => protocol.protobufCodec.encodeClientFrame(frame);
    },
  },
  {
    name: 'codec: a request decoded and checked',
    operations: perFrame,
    make: ({ protocol }) => {
      const bytes = protocol.protobufCodec.encodeClientFrame(frameOf(0));
      return () => protocol.protobufCodec.decodeClientFrame(bytes);
    },
  },
  {
    name: 'codec: an answer encoded',
    operations: perFrame,
    make: ({ protocol }) => {
      const frame = answersOf(1);
      return () => protocol.protobufCodec.encodeServerFrame(frame);
    },
  },
  {
    name: 'codec: an answer decoded',
    operations: perFrame,
    make: ({ protocol }) => {
      const bytes = protocol.protobufCodec.encodeServerFrame(answersOf(1));
      return () => protocol.protobufCodec.decodeServerFrame(bytes);
    },
  },
  {
    name: 'log entry: a command encoded',
    operations: perEntry,
    make: ({ store }) => {
      const entry = entryOf(1);
      return () => store.encodeLogEntry(entry);
    },
  },
  {
    name: 'log entry: a command decoded',
    operations: perEntry,
    make: ({ store }) => {
      const bytes = store.encodeLogEntry(entryOf(1));
      return () => store.decodeLogEntry(bytes);
    },
  },
  {
    name: 'apply: a settle, with its records for the disk',
    operations: perEntry,
    make: ({ store: { Store } }) => {
      const store = new Store({ clusterId: 'micro' });
      store.apply(openEntry, 1);
      let number = 0;
      return () => {
        number += 1;
        store.apply(entryOf(number), number + 1);
        return store.takeStateWrites();
      };
    },
  },
  {
    name: 'matcher: a check of a key',
    operations: agents,
    make: ({ scopes }) => {
      const policies = scopes.compilePolicies({
        realms: { puppet: { tls: { issuer: 'ca.pem', identity: 'cn' }, vars: { node: 'cn' } } },
        policies: {
          agent: [
            { allow: ['get', 'await'], on: ['nodes/${node}/**'] },
            { deny: ['get'], on: ['nodes/*/secret/**'] },
          ],
        },
        bindings: [{ realm: 'puppet', policies: ['agent'] }],
      });
      const all = Array.from({ length: agents }, (_, number) => ({
        scope: policies.scopeFor({ realm: 'puppet', name: `web${number}` }),
        key: `nodes/web${number}/in/database`,
      }));
      return () => {
        let allowed = 0;
        for (const { scope, key } of all) if (scope.allows('get', key)) allowed += 1;
        return allowed;
      };
    },
  },
  {
    name: 'trie: a change routed',
    operations: agents,
    make: ({ scopes }) => {
      const trie = new scopes.SegmentTrie<number>();
      const keys: string[] = [];
      for (let number = 0; number < agents; number += 1) {
        const parsed = scopes.parsePattern(`nodes/web${number}/**`);
        if (parsed.ok) trie.add(parsed.pattern, number);
        keys.push(`nodes/web${number}/in/database`);
      }
      return () => {
        let found = 0;
        for (const key of keys) trie.match(key, () => (found += 1));
        return found;
      };
    },
  },
  {
    name: 'timer wheel: a deadline set, and taken when due',
    operations: timers,
    make: ({ timerWheel: { TimerWheel } }) => {
      const wheel = new TimerWheel<number>();
      let nowMs = 1_700_000_000_000;
      return () => {
        for (let number = 0; number < timers; number += 1)
          wheel.add(nowMs + ((number * 7919) % 60_000), number);
        nowMs += 60_000;
        while (wheel.size > 0) wheel.due(nowMs, timers, (timer) => wheel.cancel(timer));
        return wheel.size;
      };
    },
  },
  {
    name: 'raft: an entry, on three of them',
    operations: 1,
    make: ({ raft }) => {
      const three = new ThreeRafts(raft);
      return () => three.propose();
    },
  },
];

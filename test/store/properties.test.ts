import * as fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { Change } from '../../src/protocol/index.ts';
import {
  Store,
  decodeLogEntry,
  encodeLogEntry,
  type Applied,
  type Command,
  type CommandResult,
  type LogEntry,
} from '../../src/store/index.ts';
import { command, pattern, sessionId, alice, bob } from './support/cluster-of-one.ts';
import { Leader, history, smallWorld, type Turn } from './support/histories.ts';
import { Model } from './support/model.ts';

vi.setConfig({ testTimeout: 60_000 });

const everything = pattern('**');
/** More of them find rarer things: STORE_RUNS=2000. */
const runs = { numRuns: Number(process.env['STORE_RUNS'] ?? 60) };

/** Sessions to begin with: most of what follows is about writes. */
const beginning: LogEntry = {
  timeMs: 1000,
  commands: [1, 2, 3].map((number) =>
    command({
      kind: 'session_open',
      session: sessionId(number),
      principal: number % 2 === 0 ? bob : alice,
      graceMs: 60,
      resume: false,
      connection: 1,
    }),
  ),
};

interface LogItem {
  readonly entry: Uint8Array;
  /** Of the configuration entry behind it. */
  readonly members: readonly number[] | undefined;
}

const applyItem = (store: Store, { entry, members }: LogItem, index: number): Applied => {
  const applied = store.apply(decodeLogEntry(entry), index);
  if (members !== undefined) store.applyConfiguration(members);
  return applied;
};

/** Applies a history; `applied` is told of every entry. Gives the log. */
const play = (
  store: Store,
  turns: readonly Turn[],
  applied: (
    entry: LogEntry,
    results: readonly CommandResult[],
    changes: readonly Change[],
    members: readonly number[] | undefined,
  ) => void = () => undefined,
): LogItem[] => {
  const leader = new Leader();
  const log: LogItem[] = [];
  const apply = (entry: LogEntry, members?: readonly number[]): void => {
    const item = { entry: encodeLogEntry(entry), members };
    log.push(item);
    const outcome = applyItem(store, item, log.length);
    applied(entry, outcome.results, outcome.changes, members);
  };
  apply(beginning);
  for (const turn of turns) {
    const entry = leader.entry(turn, store);
    apply(entry, leader.configuration(turn, store));
  }
  return log;
};

const short = (result: CommandResult): unknown => {
  if (result.kind === 'done') return 'done';
  if (result.kind === 'written') return result.result;
  if (result.kind === 'member') return { member: result.member };
  if (result.kind === 'access') return { access: result.revision };
  const { code, operation } = result.failure;
  return operation === undefined ? code : `${code}@${operation}`;
};

const changesOf = (store: Store, revision: number, limit: number, visitMax: number): string[] => {
  const seen: string[] = [];
  for (let from = revision; from < store.revision;) {
    const page = store.changesAfter({
      revision: from,
      patterns: [everything],
      limit,
      bytesMax: 1e6,
      visitMax,
    });
    expect(page.upTo).toBeGreaterThan(from);
    for (const change of page.changes) {
      expect(change.revision).toBeGreaterThan(from);
      expect(change.revision).toBeLessThanOrEqual(page.upTo);
      seen.push(`${change.kind === 'deleted' ? '-' : ''}${change.key}@${change.revision}`);
    }
    from = page.upTo;
  }
  return seen;
};

const futuresOf = (store: Store): unknown[] =>
  store
    .list({ pattern: everything, after: '', limit: 1000, bytesMax: 1e6, values: false, nowMs: 0 })
    .futures.map(({ key }) => {
      const { value, rejection, ...rest } = store.get(key) ?? { value: undefined, rejection: undefined };
      return {
        ...rest,
        ...(value && { value: String(value) }),
        ...(rejection && { rejection: rejection.code }),
      };
    });

const membersOf = (store: Store): unknown =>
  Object.fromEntries(
    store.members.map(({ member, name, peersAddress, agentsUrl, wanted }) => [
      member,
      { name, addresses: `${peersAddress} ${agentsUrl}`, wanted },
    ]),
  );

test('the store does what the model does: results, futures, members, changes from any revision in any pages', () => {
  let settled = 0;
  fc.assert(
    fc.property(
      history,
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 4 }),
      (turns, limit, visitMax) => {
        const store = new Store(smallWorld);
        const model = new Model(smallWorld);
        play(store, turns, (entry, results, _changes, members) => {
          expect(results.map(short)).toEqual(model.apply(entry));
          if (members !== undefined) model.configure(members);
          expect(membersOf(store)).toEqual(model.s.members);
          expect(store.lastMember).toBe(model.s.lastMember);
          expect(store.ticketKeys?.number ?? 0).toBe(model.s.ticketKeys);
          expect(store.revision).toBe(model.s.revision);
          expect(store.timeMs).toBe(model.s.timeMs);
          expect(store.forgottenUpTo).toBe(model.s.forgottenUpTo);
          expect(store.sessions).toBe(Object.keys(model.s.sessions).length);
          expect(store.tombstones).toBe(Object.keys(model.s.deleted).length);
          settled += results.filter(({ kind }) => kind === 'written').length;
        });
        const futures = Object.entries(model.s.futures).sort(([a], [b]) => (a < b ? -1 : 1));
        expect(futuresOf(store)).toEqual(
          futures.map(([key, { tied: _tied, ...future }]) => ({ key, ...future })),
        );
        for (let revision = 0; revision <= store.revision; revision += 3) {
          expect(changesOf(store, revision, limit, visitMax).sort()).toEqual(
            model.changesAfter(revision).sort(),
          );
        }
      },
    ),
    runs,
  );
  // The histories are worth something only if much in them succeeds.
  expect(settled).toBeGreaterThan(runs.numRuns * 12);
});

test('apply is a function of the log: two stores that apply the same have the same bytes, whoever leads', () => {
  fc.assert(
    fc.property(history, (turns) => {
      const leader = new Store(smallWorld);
      const log = play(leader, turns);
      const follower = new Store(smallWorld);
      for (const [at, item] of log.entries()) applyItem(follower, item, at + 1);
      expect(follower.digest()).toBe(leader.digest());
    }),
    runs,
  );
});

test('a snapshot and the rest of the log are the whole log, wherever it is taken', () => {
  fc.assert(
    fc.property(history, fc.nat(), fc.nat({ max: 2 }), (turns, cut, deferredMax) => {
      const whole = new Store(smallWorld);
      const disk = new Map<string, Uint8Array>();
      const write = (store: Store): void => {
        for (const { key, value } of store.takeStateWrites(deferredMax)) {
          if (value === undefined) disk.delete(key);
          else disk.set(key, value);
        }
      };
      const fromDisk = (): Store => {
        const store = new Store(smallWorld);
        for (const [key, value] of disk) store.load([{ key, value }]);
        store.finishLoad();
        return store;
      };
      const outcomes: unknown[] = [];
      const at = 1 + (cut % turns.length);
      let entries = 0;
      const log = play(whole, turns, (_, results, changes) => {
        outcomes.push({
          results,
          changes: [...changes].sort((a, b) => a.revision - b.revision || (a.key < b.key ? -1 : 1)),
        });
        // The disk is written now and then, and at the cut.
        if (++entries > at || (entries !== at && entries % 3 !== 0)) return;
        write(whole);
      });
      const loaded = fromDisk();
      for (const [number, item] of log.entries()) {
        if (number < at) continue;
        const { results, changes } = applyItem(loaded, item, number + 1);
        const sorted = [...changes].sort((a, b) => a.revision - b.revision || (a.key < b.key ? -1 : 1));
        expect({ results, changes: sorted }).toEqual(outcomes[number]);
        if (number % 2 === 0) write(loaded);
      }
      expect(loaded.digest()).toBe(whole.digest());
      // What it wrote itself, upon what it was loaded from, is a state again.
      write(loaded);
      expect(fromDisk().digest()).toBe(whole.digest());
      whole.resetDue();
      const due = (store: Store) => {
        const { futures, sessions } = store.due(1e9, 1000);
        return [...futures.map(({ key }) => key), ...sessions.map(({ session }) => session)].sort();
      };
      expect(due(loaded)).toEqual(due(whole));
    }),
    runs,
  );
});

test('a future is settled at most once in a generation, and generations only grow, also after deletion', () => {
  fc.assert(
    fc.property(history, (turns) => {
      const outcomes = new Map<string, string>();
      const latest = new Map<string, number>();
      let revision = 0;
      play(new Store(smallWorld), turns, (_, _results, changes) => {
        for (const change of changes) {
          expect(change.revision).toBeGreaterThanOrEqual(revision);
          revision = change.revision;
          if (change.kind === 'deleted') {
            // What comes after it must be another generation.
            latest.set(change.key, (latest.get(change.key) ?? 0) + 0.5);
            continue;
          }
          const { key, generation, state, value, rejection } = change.future;
          expect(generation).toBeGreaterThanOrEqual(latest.get(key) ?? 0);
          latest.set(key, generation);
          const name = `${key}#${generation}`;
          const before = outcomes.get(name);
          const outcome = `${state} ${value === undefined ? '' : String(value)} ${rejection?.code ?? ''}`;
          if (state === 'pending') expect(before).toBeUndefined();
          else if (state === 'expired') expect(before).toMatch(/^(resolved|rejected)/);
          else if (before !== undefined) expect(outcome).toBe(before);
          if (state !== 'pending') outcomes.set(name, outcome);
        }
      });
    }),
    runs,
  );
});

test('sending every write and every command about members twice changes nothing but answers it twice', () => {
  fc.assert(
    fc.property(history, (turns) => {
      const once = new Store(smallWorld);
      const twice = new Store(smallWorld);
      const log = play(once, turns);
      for (const [at, item] of log.entries()) {
        const entry = decodeLogEntry(item.entry);
        const commands = entry.commands.flatMap((one): Command[] =>
          one.kind === 'write' || one.kind.startsWith('member_') ? [one, one] : [one],
        );
        const { results } = twice.apply({ timeMs: entry.timeMs, commands }, at + 1);
        for (const [number, one] of commands.entries()) {
          const [first, second] = [results[number], results[number + 1]];
          if (one !== commands[number + 1] || first === undefined || second === undefined) continue;
          expect(short(second)).toEqual(short(first));
          if (one.kind === 'write') expect(second).toEqual(first);
        }
        if (item.members !== undefined) twice.applyConfiguration(item.members);
      }
      expect(twice.digest()).toBe(once.digest());
    }),
    runs,
  );
});

test('the id of a member is given once: never to two, never again to another, never to one that was a member', () => {
  let given = 0;
  fc.assert(
    fc.property(history, (turns) => {
      /** By id: all names that it ever had, and whether it is over. */
      const names = new Map<number, string>();
      const over = new Set<number>();
      const seen = new Set<number>();
      const store = new Store(smallWorld);
      let before: readonly number[] = [];
      play(store, turns, (entry, results, _changes, members) => {
        const present = store.members.map(({ member }) => member);
        for (const { member, name } of store.members) {
          expect(over).not.toContain(member);
          expect(names.get(member) ?? name).toBe(name);
          names.set(member, name);
        }
        for (const [number, { kind }] of entry.commands.entries()) {
          const result = results[number];
          if (kind !== 'member_add' || result?.kind !== 'member') continue;
          if (!before.includes(result.member)) given += 1;
          if (!names.has(result.member)) expect(seen).not.toContain(result.member);
        }
        for (const member of members ?? []) seen.add(member);
        for (const member of names.keys()) {
          if (members !== undefined && !present.includes(member) && !members.includes(member))
            over.add(member);
        }
        before = present;
      });
      expect(store.lastMember).toBe(Math.max(0, ...names.keys(), ...seen));
    }),
    runs,
  );
  expect(given).toBeGreaterThan(runs.numRuns / 3);
});

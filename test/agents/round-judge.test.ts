/** What a run must not let pass: each is done once here, by an agent that is none. */
import { describe, expect, test } from 'vitest';
import { AgentRecord } from './agent-record.ts';
import { expectationOf, splitKeys } from './expectation.ts';
import type { FleetAgent } from './fleet-agent.ts';
import {
  patternOf,
  planAgent,
  policiesAtFirst,
  policiesNarrowed,
  usualKeys,
  valueOf,
  waitsOf,
} from './plan.ts';
import { RoundJudge } from './round-judge.ts';
import type { RoundReport } from './round-judge.ts';

const agents = 40;
const first = policiesAtFirst({ realms: {}, policies: {}, bindings: [] }, 'ca.pem');
const keys = splitKeys(usualKeys(agents));
const published = new Map(keys.map(([key], index) => [key, index + 1]));

/** One that got all that was its own at the beginning, but for what `changed` says of its record. */
const judged = (
  index: number,
  report: Partial<RoundReport>,
  changed: (record: AgentRecord) => void,
  shutOut = false,
): readonly string[] => {
  const plan = planAgent(index);
  const record = new AgentRecord(plan.name);
  record.beginRound(1);
  const before = expectationOf(first, plan, keys);
  const after = expectationOf(policiesNarrowed(first, agents), plan, keys);
  for (const key of before.pushed) record.pushed.set(key, published.get(key) ?? 0);
  for (const key of before.answered) record.answered.set(key, published.get(key) ?? 0);
  changed(record);
  const agent: FleetAgent = {
    plan,
    record,
    servedAtMs: shutOut ? undefined : 1,
    shutOut,
    server: 0,
    start: () => undefined,
    beginRound: () => undefined,
    stop: () => undefined,
  };
  const judge = new RoundJudge({ published, revoked: new Map(), ...report }, new Set());
  judge.look(agent, { before, after: report.narrowedAt === undefined ? before : after });
  return judge.problems;
};

const own = (index: number): string => waitsOf(planAgent(index))[0] ?? '';

describe('a run finds', () => {
  test('nothing where everybody got what was theirs', () => {
    expect(judged(1, {}, () => undefined)).toEqual([]);
  });

  test('that an agent gets its two keys by its pattern, and three by its waits', () => {
    const { pushed, answered } = expectationOf(first, planAgent(10), keys);
    expect([...pushed]).toEqual(['nodes/agent10/in/address', 'nodes/agent10/in/deep/er/port']);
    expect([...answered].sort()).toEqual([...waitsOf(planAgent(10))].sort());
    expect(patternOf(planAgent(10))).toBe('nodes/agent10/in/**');
  });

  test('a value that did not come', () => {
    expect(judged(1, {}, ({ pushed }) => pushed.delete(own(1)))).toHaveLength(1);
    expect(judged(1, {}, ({ answered }) => answered.delete(own(1)))).toHaveLength(1);
  });

  test('a value of somebody else', () => {
    expect(judged(1, {}, ({ pushed }) => pushed.set(own(2), published.get(own(2)) ?? 0))).toHaveLength(1);
  });

  test('a value of another revision than the published one', () => {
    expect(judged(1, {}, ({ pushed }) => pushed.set(own(1), 100_000))).toHaveLength(1);
  });

  test('a value that came twice, of another round, or wrong', () => {
    const future = {
      key: own(1),
      generation: 1,
      state: 'resolved',
      revision: 1,
      value: Buffer.from(valueOf(own(1), 1)),
      contentType: 'text/plain; charset=utf-8',
      sensitive: false,
      producer: 'agents:admin',
      changedAtMs: 1,
    } as const;
    const record = new AgentRecord('agent1');
    record.beginRound(1);
    record.push(future);
    expect(record.problems).toEqual([]);
    record.push(future);
    record.answer({ ...future, generation: 2 });
    record.beginRound(1);
    record.answer({ ...future, value: Buffer.from('x') });
    expect(record.problems).toHaveLength(3);
  });

  test('what a revoked agent got after it was revoked, and that it is still there', () => {
    const revoked = new Map([[7, { revision: 1, atMs: 0 }]]);
    const told = (record: AgentRecord): void => record.ended(4503);
    expect(judged(7, { revoked: new Map([[7, { revision: 1_000, atMs: 0 }]]) }, told, true)).toEqual([]);
    expect(judged(7, { revoked }, told, true).length).toBeGreaterThan(0);
    expect(
      judged(7, { revoked: new Map([[7, { revision: 1_000, atMs: 0 }]]) }, () => undefined),
    ).toHaveLength(1);
  });

  test('what came after policies became narrower, and that nobody was told', () => {
    const index = 11;
    expect(judged(index, { narrowedAt: 1_000 }, () => undefined)).toEqual([]);
    expect(judged(index, { narrowedAt: 1 }, () => undefined).length).toBeGreaterThan(0);
    const clear = (record: AgentRecord): void => {
      record.pushed.clear();
      record.answered.delete(own(index));
    };
    expect(judged(index, { narrowedAt: 1 }, clear).length).toBeGreaterThan(0);
    const tellAll = (record: AgentRecord): void => {
      clear(record);
      record.subscriptionEnd = 'PERMISSION_DENIED';
      record.refused.set(own(index), 'PERMISSION_DENIED');
    };
    expect(judged(index, { narrowedAt: 1 }, tellAll)).toEqual([]);
  });

  test('an agent that is not connected in the end', () => {
    expect(judged(1, {}, () => undefined, true)).toHaveLength(1);
  });
});

import { describe, expect, test } from 'vitest';
import { electionsIn, judgeElections } from './elections.ts';
import type { ElectionsVerdict, TermsOfLoss } from './elections.ts';

const changed = (term: number, leader: number | null): string =>
  JSON.stringify({ level: 'info', term, leader, role: 'follower', msg: 'leadership changed' });
const slow = JSON.stringify({ level: 'warn', msg: 'this server is too slow to lead and hands over' });

/** Server 1 led in term 1 and is killed; unless told otherwise the logs are of servers 2 and 3. */
const judged = (logs: readonly string[][], loss: Partial<TermsOfLoss>): ElectionsVerdict =>
  judgeElections(
    electionsIn(
      logs.map((lines) => `cut off"}\n${lines.join('\n')}\nnot json\n`),
      1,
    ),
    { term: 1, termNow: 2, wasLeader: true, starved: false, ...loss },
  );

describe('the loss of a leader', () => {
  test('may bring one election', () => {
    const logs = [[changed(1, null), changed(2, 2)], [changed(2, 2)]];
    expect(judged(logs, {})).toEqual({ text: 'term 1 → 2 (one leader elected)', problems: [] });
  });

  test('may bring split votes before it', () => {
    const logs = [
      [changed(2, null), changed(3, 2)],
      [changed(2, null), changed(3, 2)],
    ];
    expect(judged(logs, { termNow: 3 })).toEqual({
      text: 'term 1 → 3 (one leader elected, one vote split)',
      problems: [],
    });
  });

  test('must not bring a second election, unless the one elected was too slow, or the machine', () => {
    const logs = [[changed(2, 2), changed(3, 3)], [changed(2, 2)]];
    expect(judged(logs, { termNow: 3 }).problems).toEqual([
      'the loss of one leader caused 2 elections: terms 2, 3',
    ]);
    expect(judged([...logs, [slow]], { termNow: 3 })).toEqual({
      text: 'term 1 → 3 (2 leaders elected, 1 handed over, being too slow)',
      problems: [],
    });
    expect(judged(logs, { termNow: 3, starved: true }).problems).toEqual([]);
  });

  test('must bring one, who stays', () => {
    expect(judged([[changed(2, null)]], {}).problems).toEqual([
      'nobody was elected in the place of the leader: term 2',
    ]);
    expect(judged([[changed(2, 2), changed(3, null)]], { termNow: 3 }).problems).toEqual([
      'the elected leader did not stay: term 3',
    ]);
  });

  test('must never bring two leaders of one term', () => {
    const logs = [[changed(2, 2)], [changed(2, 3)]];
    expect(judged(logs, { starved: true }).problems).toEqual(['term 2 had several leaders: 2, 3']);
  });
});

test('the loss of a follower brings none', () => {
  const loss = { wasLeader: false, termNow: 1 };
  expect(judged([[changed(1, 1)]], loss)).toEqual({ text: 'term 1 → 1', problems: [] });
  expect(judged([[changed(2, 2)]], { ...loss, termNow: 2 }).problems).toEqual([
    'the loss of a follower caused an election: term 1 became 2',
  ]);
});

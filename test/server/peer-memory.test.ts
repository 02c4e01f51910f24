import { describe, expect, test } from 'vitest';
import { asLogIndex, asMemberId, asTerm, type MessageBody } from '../../src/raft/index.ts';
import { lineageOf, PeerMemory } from '../../src/server/runs.ts';

const diskId = Buffer.alloc(16, 1);
const [self, peer] = [asMemberId(1), asMemberId(2)];
const runOf = (starts: number): number => starts * 2 ** 20 + 7;

const setup = () => {
  const memory = new PeerMemory();
  return {
    memory,
    come: (starts: number, standing?: { term: number; lastIndex: number }) =>
      memory.refusalOf(peer, undefined, { run: runOf(starts), diskId, ...(standing && { standing }) })
        ?.reason,
    say: (starts: number, term: number, body: MessageBody) =>
      memory.heard(peer, runOf(starts), { from: peer, to: self, term: asTerm(term), ...body }),
  };
};

const accepted = (matchIndex: number): MessageBody => ({
  kind: 'append_response',
  outcome: { accepted: true, matchIndex: asLogIndex(matchIndex) },
});
const rejected: MessageBody = {
  kind: 'append_response',
  outcome: {
    accepted: false,
    rejectedIndex: asLogIndex(900),
    hintIndex: asLogIndex(800),
    hintTerm: asTerm(1),
  },
};

describe('what a peer has told', () => {
  test('of a term must still be known to its disk when it comes back', () => {
    const { come, say } = setup();
    expect(come(1, { term: 3, lastIndex: 10 })).toBeUndefined();
    say(1, 4, { kind: 'vote_response', granted: true });
    expect(come(2, { term: 3, lastIndex: 10 })).toMatch(/knows term 3 and has been heard in term 4/);
    expect(come(2, { term: 4, lastIndex: 10 })).toBeUndefined();
  });

  test('by a start in the log must have been a run of its disk, until the log tells of another one', () => {
    const { memory } = setup();
    const reasonOf = (known: number | undefined, run: number, runs: readonly number[]): string | undefined =>
      memory.refusalOf(peer, known === undefined ? undefined : { run: known, diskId }, {
        run,
        diskId,
        lineage: { since: 1, runs },
      })?.reason;
    const [lost, copied] = [runOf(2), runOf(2) + 1];
    memory.foundInLog(peer, { run: lost, diskId });
    memory.foundInLog(peer, { run: runOf(1), diskId });
    expect(reasonOf(undefined, runOf(3), [runOf(1), copied])).toMatch(/an older copy/);
    expect(reasonOf(undefined, runOf(3), [runOf(1), lost])).toBeUndefined();
    memory.foundInLog(peer, { run: runOf(4), diskId });
    expect(reasonOf(copied, runOf(3), [runOf(1), copied])).toMatch(/an older copy/);
    expect(reasonOf(runOf(4) + 1, runOf(5), [runOf(1), copied, runOf(4) + 1])).toBeUndefined();
  });

  test('to have must still be there in the same term; in a later one another leader may have replaced it', () => {
    const { come, say } = setup();
    come(1, { term: 4, lastIndex: 10 });
    say(1, 4, accepted(20));
    say(1, 4, rejected);
    expect(come(2, { term: 4, lastIndex: 19 })).toMatch(/ends at 19, and it has acknowledged 20/);
    expect(come(2, { term: 5, lastIndex: 12 })).toBeUndefined();
  });

  test('to have applied must still be there in any term', () => {
    const { memory, come } = setup();
    come(1, { term: 4, lastIndex: 30 });
    memory.heardApplied(peer, runOf(1), 25);
    expect(come(2, { term: 9, lastIndex: 24 })).toMatch(/acknowledged 25/);
    expect(come(2, { term: 9, lastIndex: 25 })).toBeUndefined();
  });

  test('counts for a new run only, which is refused for as long as it lasts', () => {
    const { come, say } = setup();
    come(1, { term: 4, lastIndex: 10 });
    say(1, 4, accepted(20));
    // Its second link, which it began to make earlier.
    expect(come(1, { term: 4, lastIndex: 10 })).toBeUndefined();
    expect(come(2, { term: 4, lastIndex: 10 })).toMatch(/older copy/);
    expect(come(2, { term: 4, lastIndex: 10 })).toMatch(/older copy/);
  });

  test('by earlier runs is remembered, also what arrives late', () => {
    const { come, say } = setup();
    come(1, { term: 4, lastIndex: 10 });
    come(2, { term: 4, lastIndex: 10 });
    say(1, 4, accepted(20));
    come(3, { term: 4, lastIndex: 20 });
    say(3, 4, accepted(15));
    expect(come(4, { term: 4, lastIndex: 19 })).toMatch(/acknowledged 20/);
  });

  test('is no reason to refuse who says nothing of its disk, as servers of the version before', () => {
    const { come, say } = setup();
    come(1);
    say(1, 4, accepted(20));
    expect(come(2)).toBeUndefined();
    expect(come(1)).toMatch(/an older copy of its data \(start 1, the cluster has seen start 2\)/);
  });
});

describe('the runs that a disk had', () => {
  const run = (starts: number, chance = 7): number => starts * 2 ** 20 + chance;
  const disk = (now: number, runs: readonly number[], since = 1) => ({
    run: now,
    diskId,
    lineage: { since, runs },
  });
  const known = (last: number) => ({ run: last, diskId });
  const refused = (last: number | undefined, now: ReturnType<typeof disk>) =>
    new PeerMemory().refusalOf(peer, last === undefined ? undefined : known(last), now);

  test('must have the one that the log knows, however many there are', () => {
    expect(refused(run(2), disk(run(4), [run(1), run(2), run(3)]))).toBeUndefined();
    expect(refused(run(2), disk(run(9), [run(1), run(2, 8), run(3)]))).toMatchObject({
      outdated: true,
      reason: expect.stringMatching(/\(start 9, but not after the start 2/) as string,
    });
    expect(refused(run(5), disk(run(4), [run(3)]))).toMatchObject({ outdated: true });
    expect(refused(run(4, 8), disk(run(4), [run(3)]))).toMatchObject({ outdated: true });
    expect(refused(run(4), disk(run(4), [run(3)]))).toBeUndefined();
  });

  test('are believed by their count where a version without them had the disk in between', () => {
    expect(refused(run(2, 8), disk(run(6), [run(5)], 5))).toBeUndefined();
    expect(refused(run(5, 8), disk(run(6), [run(5)], 5))).toMatchObject({ outdated: true });
  });

  test('that may have been left out keep a server out, but its disk is not called outdated', () => {
    const found = refused(run(2), disk(run(9), [run(1), run(8)]));
    expect(found?.outdated).toBe(false);
    expect(found?.reason).toMatch(/do not tell any more whether they had start 2/);
  });

  test('make it certain that a disk lacks what an earlier run of it has told', () => {
    const memory = new PeerMemory();
    memory.refusalOf(peer, known(run(1)), { ...disk(run(1), []), standing: { term: 1, lastIndex: 1 } });
    memory.heardApplied(peer, run(1), 25);
    const later = { ...disk(run(2), [run(1)]), standing: { term: 1, lastIndex: 24 } };
    expect(memory.refusalOf(peer, known(run(1)), later)).toMatchObject({ outdated: true });
    const { lineage: _lineage, ...untold } = later;
    expect(memory.refusalOf(peer, known(run(1)), untold)).toMatchObject({ outdated: false });
  });

  test('tell two copies apart, of which the first one heard keeps the other out until the log decides', () => {
    const memory = new PeerMemory();
    const one = disk(run(3, 1), [run(1), run(2)]);
    const other = disk(run(3, 2), [run(1), run(2)]);
    const otherLater = disk(run(4, 2), [run(1), run(2), run(3, 2)]);
    expect(memory.refusalOf(peer, known(run(2)), one)).toBeUndefined();
    expect(memory.refusalOf(peer, known(run(2)), other)).toMatchObject({ outdated: false });
    expect(memory.refusalOf(peer, known(run(2)), otherLater)).toMatchObject({ outdated: false });
    expect(memory.refusalOf(peer, known(run(3, 2)), otherLater)).toBeUndefined();
    expect(memory.refusalOf(peer, known(run(3, 2)), one)).toMatchObject({ outdated: true });
  });

  test('of the log win over one that was heard earlier and is on none of its lines', () => {
    const memory = new PeerMemory();
    expect(memory.refusalOf(peer, undefined, disk(run(4, 9), [run(3)]))).toBeUndefined();
    const genuine = disk(run(6), [run(3), run(4), run(5)]);
    expect(memory.refusalOf(peer, undefined, genuine)).toMatchObject({ outdated: false });
    expect(memory.refusalOf(peer, known(run(5)), genuine)).toBeUndefined();
  });

  test('are told up to a bound, with the one that the cluster has confirmed', () => {
    const lineage = Array.from({ length: 5000 }, (_, at) => run(at + 1));
    expect(lineageOf({ lineage, lineageSince: 1 }, run(3))).toEqual({
      since: 1,
      runs: [run(3), ...lineage.slice(-4095)],
    });
    expect(lineageOf({ lineage, lineageSince: 1 }, run(3000)).runs).toEqual(lineage.slice(-4096));
    expect(lineageOf({ lineage, lineageSince: 4990 }, undefined)).toEqual({
      since: 4990,
      runs: lineage.slice(4989),
    });
  });
});

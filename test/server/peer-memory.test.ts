import { describe, expect, test } from 'vitest';
import { asLogIndex, asMemberId, asTerm, type MessageBody } from '../../src/raft/index.ts';
import { decodePeerRecords } from '../../src/server/peer-records.ts';
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

/** A server's disk, as far as it is about its peers, and the memory of the process that runs on it. */
class Rememberer {
  readonly records = new Map<string, Uint8Array>();
  memory = new PeerMemory();

  /** Gives the keys that were written. */
  save(isMember = (_member: number): boolean => true): string[] {
    const writes = this.memory.takeWrites(isMember);
    for (const { key, value } of writes) {
      if (value === undefined) this.records.delete(key);
      else this.records.set(key, value);
    }
    return writes.map(({ key }) => key);
  }

  restart(): void {
    this.memory = new PeerMemory(decodePeerRecords(this.records));
  }
}

describe('what is on disk of what a peer has told', () => {
  const run = runOf(2);
  const line = { since: 1, runs: [runOf(1)] };
  const presence = { run, diskId, lineage: line, standing: { term: 3, lastIndex: 10 } };
  const next = { ...presence, run: runOf(3), lineage: { since: 1, runs: [runOf(1), run] } };
  const acknowledge = (memory: PeerMemory, by: number, index: number): void =>
    memory.heard(peer, by, { from: peer, to: self, term: asTerm(4), ...accepted(index) });

  test('keeps its older copies out after a restart, for certain where all is of one line', () => {
    const server = new Rememberer();
    expect(server.memory.refusalOf(peer, undefined, presence)).toBeUndefined();
    acknowledge(server.memory, run, 20);
    server.memory.heardApplied(peer, run, 15);
    expect(server.save()).toEqual(['2/disk', '2/told']);
    server.restart();
    const refused = (lastIndex: number, term = 4) =>
      server.memory.refusalOf(peer, undefined, { ...next, standing: { term, lastIndex } });
    expect(refused(19)).toMatchObject({ outdated: true });
    expect(refused(14, 9)).toMatchObject({ outdated: true });
    expect(refused(20, 3)).toMatchObject({ outdated: true });
    expect(refused(20)).toBeUndefined();
    server.save();
    server.restart();
    const last = { ...next, run: runOf(4), lineage: { since: 1, runs: [runOf(1), run, runOf(3)] } };
    expect(
      server.memory.refusalOf(peer, undefined, { ...last, standing: { term: 4, lastIndex: 19 } }),
    ).toMatchObject({ outdated: true });
  });

  test('is written only where it has changed, the lineage only with a start, and of strangers not before they are members', () => {
    const server = new Rememberer();
    server.memory.refusalOf(peer, undefined, presence);
    expect(server.save(() => false)).toEqual([]);
    expect(server.save()).toEqual(['2/disk', '2/told']);
    expect(server.save()).toEqual([]);
    acknowledge(server.memory, run, 20);
    expect(server.save()).toEqual(['2/told']);
    acknowledge(server.memory, run, 20);
    acknowledge(server.memory, run, 12);
    expect(server.save()).toEqual([]);
    server.memory.refusalOf(peer, undefined, { ...next, standing: { term: 4, lastIndex: 20 } });
    // What is late from the run before.
    acknowledge(server.memory, run, 21);
    expect(server.save()).toEqual(['2/disk', '2/told']);
    server.restart();
    expect(server.save()).toEqual([]);
  });

  test('goes with a member that has left for good, and with one that the log knows as another', () => {
    const server = new Rememberer();
    server.memory.refusalOf(peer, undefined, presence);
    server.save();
    server.memory.forgetAll((member) => member !== peer);
    expect([server.save(), server.records.size]).toEqual([[], 2]);
    server.memory.forgetAll((member) => member === peer);
    expect([server.save().length, server.records.size]).toEqual([2, 0]);
    server.memory.refusalOf(peer, undefined, presence);
    server.save();
    server.restart();
    const other = { run: runOf(5), diskId: Buffer.alloc(16, 9) };
    expect(server.memory.refusalOf(peer, other, other)).toBeUndefined();
    server.save();
    server.restart();
    expect(server.memory.refusalOf(peer, other, presence)).toMatchObject({ outdated: true });
    expect(server.memory.refusalOf(peer, undefined, other)).toBeUndefined();
  });

  test('is kept beside a later start that is only in the log', () => {
    const server = new Rememberer();
    server.memory.refusalOf(peer, undefined, presence);
    acknowledge(server.memory, run, 20);
    server.save();
    server.restart();
    server.memory.announced(peer, { run: runOf(3), diskId });
    expect(server.memory.refusalOf(peer, undefined, presence)?.reason).toMatch(/start 3/);
    const behind = { ...next, standing: { term: 4, lastIndex: 19 } };
    expect(server.memory.refusalOf(peer, undefined, behind)).toMatchObject({ outdated: true });
    expect(
      server.memory.refusalOf(peer, undefined, { ...next, standing: { term: 4, lastIndex: 20 } }),
    ).toBeUndefined();
  });

  test('does not keep out a disk that tells no more of a start of long ago, if the log has a later one of it', () => {
    const server = new Rememberer();
    server.memory.refusalOf(peer, undefined, presence);
    server.save();
    server.restart();
    const much = { ...presence, run: runOf(9), lineage: { since: 1, runs: [runOf(7), runOf(8)] } };
    expect(server.memory.refusalOf(peer, undefined, much)).toMatchObject({ outdated: false });
    expect(server.memory.refusalOf(peer, { run: runOf(8), diskId }, much)).toBeUndefined();
  });

  test('is refused as damaged where it makes no sense, and passed over where a later version wrote it', () => {
    const server = new Rememberer();
    server.memory.refusalOf(peer, undefined, presence);
    server.save();
    server.records.set('2/later', Buffer.from('?'));
    server.restart();
    for (const key of ['2/told', '2/disk']) {
      const damaged = new Map(server.records).set(key, Buffer.from('{"term":-1}'));
      expect(() => decodePeerRecords(damaged)).toThrow(expect.objectContaining({ code: 'DATA_DAMAGED' }));
    }
    server.records.delete('2/told');
    expect(() => server.restart()).toThrow(/"2\/told" of what a peer has told makes no sense/);
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

  test('of which one is in the log and not applied are asked for it, and for nothing else', () => {
    const { memory, come } = setup();
    memory.announced(peer, { run: runOf(3), diskId });
    expect(come(3)).toBeUndefined();
    expect(come(2)).toMatch(/start 2, the cluster has seen start 3/);
    const { memory: next } = setup();
    next.announced(peer, { run: runOf(3), diskId });
    const presence = { run: runOf(5), diskId, standing: { term: 0, lastIndex: 0 } };
    const lineage = { since: 0, runs: [runOf(1), runOf(2), 4 * 2 ** 20 + 1] };
    expect(next.refusalOf(peer, undefined, { ...presence, lineage })).toMatchObject({ outdated: false });
    expect(
      next.refusalOf(peer, undefined, { ...presence, lineage: { since: 0, runs: [runOf(3), runOf(4)] } }),
    ).toBeUndefined();
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

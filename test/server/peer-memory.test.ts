import { describe, expect, test } from 'vitest';
import { asLogIndex, asMemberId, asTerm, type MessageBody } from '../../src/raft/index.ts';
import { PeerMemory } from '../../src/server/runs.ts';

const diskId = Buffer.alloc(16, 1);
const [self, peer] = [asMemberId(1), asMemberId(2)];
const runOf = (starts: number): number => starts * 2 ** 20 + 7;

const setup = () => {
  const memory = new PeerMemory();
  return {
    memory,
    come: (starts: number, standing?: { term: number; lastIndex: number }) =>
      memory.refusalOf(peer, undefined, { run: runOf(starts), diskId, ...(standing && { standing }) }),
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

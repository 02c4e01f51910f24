/** Rules broken in src/peers: what servers say to each other, as bytes. */
import type { Mutation } from '../mutation.ts';

export const peersMutations: readonly Mutation[] = [
  {
    name: 'refused-read-is-a-read',
    rule: 'A leader that cannot say how far to read refuses: that is not the beginning of the log.',
    file: 'peers/raft-messages.ts',
    find: 'index: refused ? undefined : index,',
    replace: 'index,',
  },
  {
    name: 'entries-take-the-term-before',
    rule: 'An entry arrives with the term that it was sent with.',
    file: 'peers/raft-messages.ts',
    find: 'term: asTerm(term ?? 0),\n      index',
    replace: 'term: asTerm(body.previousTerm ?? 0),\n      index',
    quick: true,
  },
  {
    name: 'forwarded-commands-without-a-term',
    rule: 'Who forwards commands says in which term it takes the receiver for the leader.',
    file: 'peers/peer-codec.ts',
    find: 'forward: forward ?? [],\n  forwardTerm: asWhole(forwardTerm ?? 0),',
    replace: 'forward: forward ?? [],\n  forwardTerm: 0,',
  },
];

/**
 * Consensus: Raft as a pure, synchronous core.
 *
 * For: agreeing on one log among the members, electing who may add to it, and answering when a read is up to date.
 * Owns: the log in memory, terms, votes, progress, elections. It keeps nothing on disk: `Ready` says what to write.
 * May call: nothing. No input or output, clock, randomness of its own, promise, or other room.
 * Promises: nothing that depends on a write leaves before that write is on disk (`afterDurable`, or held inside);
 * every token given to it is committed by somebody's log, or comes back exactly once in `reads` or `dropped` (an
 * appended proposal is not reported again: the caller sees it applied, or overwritten); entries are given out to be
 * applied once, in order, committed and durable here; inputs that repeat or come late are harmless. A broken
 * invariant throws an InvariantViolation, and the core refuses to go on.
 */

export { InvariantViolation } from './assert.ts';
export { emptyConfiguration, initialConfiguration, membersOf } from './configuration.ts';
export { decodeConfiguration, encodeConfiguration } from './configuration-codec.ts';
export { describeConfiguration, describeMessage } from './describe.ts';
export { checkInvariants } from './invariants.ts';
export type { InvariantView } from './invariants.ts';
export { Raft } from './raft.ts';
export { asLogIndex, asMemberId, asTerm } from './types.ts';
export type * from './types.ts';

/**
 * Linearizable reads without a log entry (Raft §6.4).
 *
 * The leader gathers the reads of one turn, notes its commit index, and sends heartbeats that carry a new round
 * number. A quorum of answers to this round or a later one proves that it still led after the reads had come, so no
 * newer leader can have committed anything they miss. Rounds are numbered by the leader: an answer can never be
 * taken for one to a round that was not yet begun when the answer was written. A follower gathers its own reads in
 * the same way and asks the leader once for all of them.
 */

import type { Core } from './core.ts';
import { broadcastHeartbeat } from './heartbeat.ts';
import { reachedByQuorum } from './quorum.ts';
import type { DropReason, LogIndex, MemberId, Token } from './types.ts';

type Reader =
  | { readonly kind: 'local'; readonly token: Token }
  | { readonly kind: 'peer'; readonly peer: MemberId; readonly context: number };

interface Round {
  readonly number: number;
  readonly index: LogIndex;
  readonly readers: readonly Reader[];
}

/** On a leader. */
export class LeaderReads {
  /** Came since the last round began, or before this leader committed an entry of its own term. */
  waiting: Reader[] = [];
  /** Oldest first. */
  unconfirmed: Round[] = [];
  /** The latest round; it rides on every heartbeat. */
  round = 0;
  count = 0;
}

interface Asked {
  readonly context: number;
  readonly tokens: readonly Token[];
  elapsedTicks: number;
}

/** On a follower. */
export class ForwardedReads {
  waiting: Token[] = [];
  asked: Asked[] = [];
  count = 0;
  #context: number;

  /** Contexts start anywhere: an answer to a question from before a restart must not answer one from after it. */
  constructor(random: () => number) {
    this.#context = Math.floor(random() * 2 ** 48);
  }

  nextContext(): number {
    this.#context += 1;
    return this.#context;
  }
}

const finish = (core: Core, reader: Reader, index: LogIndex): void => {
  if (reader.kind === 'local') core.outbox.read(reader.token, index);
  else core.send(reader.peer, { kind: 'read_response', context: reader.context, index });
};

const refuse = (core: Core, reader: Reader, reason: DropReason): void => {
  if (reader.kind === 'local') core.outbox.drop('read', reader.token, reason);
  else core.send(reader.peer, { kind: 'read_response', context: reader.context, index: undefined });
};

const acceptAsLeader = (core: Core, reader: Reader): void => {
  const { leadership, settings } = core;
  if (leadership === undefined) return refuse(core, reader, 'not_leader');
  if (leadership.transfer !== undefined) return refuse(core, reader, 'transferring');
  if (leadership.reads.count >= settings.pendingReadsMax) return refuse(core, reader, 'too_many_reads');
  leadership.reads.waiting.push(reader);
  leadership.reads.count += 1;
};

export const startRead = (core: Core, token: Token): void => {
  if (core.leadership !== undefined) return acceptAsLeader(core, { kind: 'local', token });
  if (core.leader === undefined) return core.outbox.drop('read', token, 'no_leader');
  const reads = core.forwardedReads;
  if (reads.count >= core.settings.pendingReadsMax) return core.outbox.drop('read', token, 'too_many_reads');
  reads.waiting.push(token);
  reads.count += 1;
};

export const handleReadRequest = (core: Core, peer: MemberId, context: number): void => {
  acceptAsLeader(core, { kind: 'peer', peer, context });
};

export const handleReadResponse = (core: Core, context: number, index: LogIndex | undefined): void => {
  const reads = core.forwardedReads;
  const at = reads.asked.findIndex((asked) => asked.context === context);
  if (at === -1) return;
  for (const asked of reads.asked.splice(at, 1)) {
    reads.count -= asked.tokens.length;
    for (const token of asked.tokens) {
      if (index === undefined) core.outbox.drop('read', token, 'lost_leadership');
      else core.outbox.read(token, index);
    }
  }
};

/** Answers every read whose round a quorum has answered. */
export const confirmReads = (core: Core): void => {
  const { leadership } = core;
  if (leadership === undefined || leadership.reads.unconfirmed.length === 0) return;
  const { reads } = leadership;
  const confirmed = reachedByQuorum(core.configuration, (id) =>
    id === core.id ? reads.round : (core.progressOf(id)?.readRound ?? 0),
  );
  let done = 0;
  for (const round of reads.unconfirmed) {
    if (round.number > confirmed) break;
    done += 1;
    reads.count -= round.readers.length;
    for (const reader of round.readers) finish(core, reader, round.index);
  }
  reads.unconfirmed.splice(0, done);
};

/**
 * Begins a round for the reads that came since the last one. Before an entry of its own term is committed, a leader
 * does not know how far its predecessors had committed: the reads wait.
 */
const beginRound = (core: Core): void => {
  const { leadership, log } = core;
  if (leadership === undefined || leadership.reads.waiting.length === 0) return;
  if (log.termAt(log.commit) !== core.term) return;
  const { reads } = leadership;
  reads.round += 1;
  reads.unconfirmed.push({ number: reads.round, index: log.commit, readers: reads.waiting });
  reads.waiting = [];
  broadcastHeartbeat(core, leadership);
  confirmReads(core);
};

const askLeader = (core: Core): void => {
  const reads = core.forwardedReads;
  if (reads.waiting.length === 0 || core.leader === undefined) return;
  const context = reads.nextContext();
  reads.asked.push({ context, tokens: reads.waiting, elapsedTicks: 0 });
  reads.waiting = [];
  core.send(core.leader, { kind: 'read_request', context });
};

/** At the end of a turn. */
export const flushReads = (core: Core): void => {
  if (core.leadership !== undefined) beginRound(core);
  else askLeader(core);
};

/** The leader may have lost the question, or this member the answer. */
export const tickForwardedReads = (core: Core): void => {
  const reads = core.forwardedReads;
  let overdue = 0;
  for (const asked of reads.asked) {
    asked.elapsedTicks += 1;
    if (asked.elapsedTicks < core.settings.electionTicks) continue;
    overdue += 1;
    reads.count -= asked.tokens.length;
    for (const token of asked.tokens) core.outbox.drop('read', token, 'no_leader');
  }
  // All age alike, so the oldest come first.
  if (overdue > 0) reads.asked.splice(0, overdue);
};

export const dropForwardedReads = (core: Core, reason: DropReason): void => {
  const reads = core.forwardedReads;
  if (reads.count === 0) return;
  for (const asked of reads.asked) for (const token of asked.tokens) core.outbox.drop('read', token, reason);
  for (const token of reads.waiting) core.outbox.drop('read', token, reason);
  reads.asked = [];
  reads.waiting = [];
  reads.count = 0;
};

export const dropLeaderReads = (core: Core, reads: LeaderReads, reason: DropReason): void => {
  for (const round of reads.unconfirmed) for (const reader of round.readers) refuse(core, reader, reason);
  for (const reader of reads.waiting) refuse(core, reader, reason);
  reads.unconfirmed = [];
  reads.waiting = [];
  reads.count = 0;
};

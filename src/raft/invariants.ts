/**
 * What must hold in every state, and from each state to the next (after LogCabin's RaftConsensusInvariants).
 * Cheap enough for every step of a simulation; the assertions that production needs are in the parts themselves.
 */

import { violated } from './assert.ts';
import { checkConfiguration, mayFollow, membersOf } from './configuration.ts';
import type { Core, Leadership } from './core.ts';
import { describeConfiguration } from './describe.ts';
import { configurationAt, presentConfiguration } from './configuration-history.ts';
import { hearsLeader } from './election.ts';
import type { Configuration, LogIndex, MemberId, Role, Term } from './types.ts';

/** Longer logs are looked at from here on back: a check of the whole log in every step would be quadratic. */
const checkedEntriesMax = 256;

export interface InvariantView {
  readonly id: MemberId;
  readonly role: Role;
  readonly term: Term;
  readonly vote: MemberId | undefined;
  readonly leader: MemberId | undefined;
  /** Within an election timeout: it supports no other campaign. */
  readonly hearsLeader: boolean;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  readonly durable: LogIndex;
  /** How often the log was cut off. */
  readonly truncations: number;
  /** The last write that was given out, and the last one known to be on disk. */
  readonly sequence: number;
  readonly persistedSequence: number;
  /** As of the last applied entry. */
  readonly configuration: Configuration;
}

/** Who waits to be added goes by the first configuration in its log before that is applied. */
const appliedConfiguration = (core: Core): Configuration =>
  core.baseConfiguration.voters.length > 0 ? core.configuration : configurationAt(core, core.log.applied);

export const viewOf = (core: Core): InvariantView => ({
  id: core.id,
  role: core.role,
  term: core.term,
  vote: core.vote,
  leader: core.leader,
  hearsLeader: hearsLeader(core),
  firstIndex: core.log.first,
  lastIndex: core.log.last,
  commit: core.log.commit,
  applied: core.log.applied,
  durable: core.log.durable,
  truncations: core.log.truncations,
  sequence: core.outbox.sequence,
  persistedSequence: core.outbox.persistedSequence,
  configuration: appliedConfiguration(core),
});

/**
 * What makes it safe that a configuration counts when it is applied: of two configuration entries the first is known to
 * be committed wherever the second is, and a leader adds one only to a log whose last one it has applied.
 */
const checkConfigurationEntries = (core: Core): void => {
  const { log, leadership, configuration } = core;
  const uncommitted = log.configurationsBetween(log.commit, log.last).length;
  if (uncommitted > 1) violated(`${uncommitted} configuration entries follow commit ${log.commit}`);
  if (leadership !== undefined) {
    const unapplied = log.configurationsBetween(log.applied, log.last).length;
    if (unapplied > 1) violated(`a leader has ${unapplied} configuration entries that it has not applied`);
    const { seal } = leadership;
    if (seal !== undefined && seal > log.baseIndex && log.termAt(seal) !== core.term) {
      violated(`the seal at ${seal} is not an entry of term ${core.term}`);
    }
  }
  if (
    describeConfiguration(presentConfiguration(log, core.baseConfiguration)) !==
    describeConfiguration(configuration)
  ) {
    violated(
      `"${describeConfiguration(configuration)}" counts, which is not the configuration as of ${log.applied}`,
    );
  }
};

const checkLeadership = (core: Core, leadership: Leadership): void => {
  const expected = membersOf(core.configuration).filter((id) => id !== core.id);
  const actual = leadership.peers.map((peer) => peer.id);
  if (actual.join() !== expected.join()) {
    violated(`progress is kept for [${actual.join()}], the other members are [${expected.join()}]`);
  }
  for (const peer of leadership.peers) {
    const { id, match, next, inflights, state } = peer;
    if (match >= next) violated(`match ${match} of peer ${id} is not below next ${next}`);
    if (next > core.log.last + 1)
      violated(`next ${next} of peer ${id} is beyond the last entry ${core.log.last}`);
    if (inflights.bytes !== inflights.sumBytes()) {
      violated(`${inflights.bytes} bytes in flight to ${id} are counted, there are ${inflights.sumBytes()}`);
    }
    if (state !== 'replicate' && inflights.count > 0) {
      violated(`${inflights.count} appends were sent ahead to ${id} in state ${state}`);
    }
    if (peer.readRound > leadership.reads.round)
      violated(`peer ${id} answered a read round that was not begun`);
  }
  let count = leadership.reads.waiting.length;
  for (const round of leadership.reads.unconfirmed) count += round.readers.length;
  if (count !== leadership.reads.count)
    violated(`${leadership.reads.count} reads are counted, there are ${count}`);
};

/** One state by itself. Throws an InvariantViolation. */
export const checkCore = (core: Core): void => {
  const { log, leadership } = core;
  log.check(checkedEntriesMax);
  checkConfiguration(core.configuration);
  checkConfigurationEntries(core);
  if (log.lastTerm > core.term)
    violated(`the last entry has term ${log.lastTerm}, beyond the present ${core.term}`);
  if ((core.role === 'leader') !== (leadership !== undefined)) {
    violated(`a ${core.role} has ${leadership === undefined ? 'no ' : ''}state of a leader`);
  }
  if ((core.role === 'leader') !== (core.leader === core.id)) {
    violated(`a ${core.role} takes ${core.leader ?? 'nobody'} for the leader`);
  }
  if (core.role === 'candidate' && core.vote !== core.id) {
    violated(`a candidate of term ${core.term} voted for ${core.vote ?? 'nobody'}`);
  }
  if (core.role === 'leader' && !core.hardStateIsDurable)
    violated(`term ${core.term} is led, but not on this disk`);
  if (core.install !== undefined && core.role !== 'follower') {
    violated(`a ${core.role} has a snapshot that is not on disk`);
  }
  if (leadership !== undefined) checkLeadership(core, leadership);
};

const checkSuccession = (previous: InvariantView, now: InvariantView): void => {
  const [before, after] = [previous.configuration, now.configuration];
  if (before === after || describeConfiguration(before) === describeConfiguration(after)) return;
  const change = `"${describeConfiguration(before)}" became "${describeConfiguration(after)}"`;
  if (previous.applied === now.applied) violated(`${change} although nothing was applied`);
  // With several entries, or a snapshot, several changes may have been applied.
  const isOneStep = now.applied === previous.applied + 1;
  if (isOneStep && before.voters.length > 0 && !mayFollow(before, after)) violated(`${change} in one step`);
};

/** From one state to a later one of the same run of a member. Throws an InvariantViolation. */
export const checkInvariants = (previous: InvariantView | undefined, now: InvariantView): void => {
  if (now.applied > Math.min(now.commit, now.durable)) {
    violated(`applied ${now.applied} is beyond commit ${now.commit} or durable ${now.durable}`);
  }
  if (now.commit > now.lastIndex) violated(`commit ${now.commit} is beyond the last entry ${now.lastIndex}`);
  if (now.durable > now.lastIndex)
    violated(`durable ${now.durable} is beyond the last entry ${now.lastIndex}`);
  if (now.firstIndex > now.applied + 1)
    violated(`the log begins at ${now.firstIndex}, applied is ${now.applied}`);
  if (now.persistedSequence > now.sequence)
    violated(`write ${now.persistedSequence} is done but was not given out`);
  if (previous === undefined) return;
  if (previous.id !== now.id) violated(`member ${previous.id} became member ${now.id}`);
  for (const field of ['term', 'commit', 'applied', 'firstIndex', 'sequence', 'persistedSequence'] as const) {
    if (now[field] < previous[field]) violated(`${field} fell from ${previous[field]} to ${now[field]}`);
  }
  checkSuccession(previous, now);
  if (previous.term !== now.term) return;
  if (previous.vote !== undefined && now.vote !== previous.vote) {
    violated(`the vote in term ${now.term} changed from ${previous.vote} to ${now.vote ?? 'nobody'}`);
  }
  if (previous.leader !== undefined && now.leader !== undefined && previous.leader !== now.leader) {
    violated(`term ${now.term} had leader ${previous.leader} and now ${now.leader}`);
  }
  if (previous.role === 'leader' && now.role === 'leader' && previous.truncations !== now.truncations) {
    violated(`the leader of term ${now.term} cut off its own log`);
  }
};

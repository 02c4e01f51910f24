/** Raft's own records as protobuf: hard state, configurations, snapshot points. Strict in both directions. */
import { messages } from '../protocol/index.ts';
import { asLogIndex, asMemberId, asTerm } from '../raft/index.ts';
import type { Configuration, HardState, MemberId, SnapshotPoint } from '../raft/index.ts';

type ConfigurationMessage = messages.log.Configuration.$Properties;
type SnapshotPointMessage = messages.log.SnapshotPoint.$Properties;

/** Far more than any cluster has; a bound on what a message can make us sort. */
const membersMax = 1000;

const members = (what: string, values: readonly number[] | undefined): MemberId[] => {
  if (values === undefined) return [];
  if (values.length > membersMax)
    throw new RangeError(`${what}: ${values.length} members, at most ${membersMax}`);
  const ids = values.map(asMemberId);
  for (let at = 1; at < ids.length; at += 1) {
    if ((ids[at - 1] ?? 0) >= (ids[at] ?? 0))
      throw new RangeError(`${what} is not in ascending order: ${ids.join()}`);
  }
  return ids;
};

/** Throws a RangeError for a member id out of range or a list out of order. */
const configurationFromMessage = (message: ConfigurationMessage): Configuration => ({
  voters: members('voters', message.voters),
  votersOutgoing: members('votersOutgoing', message.votersOutgoing),
  learners: members('learners', message.learners),
  learnersNext: members('learnersNext', message.learnersNext),
  autoLeave: message.autoLeave ?? false,
});

const configurationToMessage = (configuration: Configuration): ConfigurationMessage => ({
  voters: [...configuration.voters],
  votersOutgoing: [...configuration.votersOutgoing],
  learners: [...configuration.learners],
  learnersNext: [...configuration.learnersNext],
  autoLeave: configuration.autoLeave,
});

/** Throws a RangeError for a number out of range or a missing configuration. */
export const snapshotPointFromMessage = (message: SnapshotPointMessage): SnapshotPoint => {
  const { configuration } = message;
  if (configuration === undefined) {
    throw new RangeError('a snapshot point without a configuration');
  }
  return {
    index: asLogIndex(message.index ?? 0),
    term: asTerm(message.term ?? 0),
    configuration: configurationFromMessage(configuration),
  };
};

export const snapshotPointToMessage = (point: SnapshotPoint): SnapshotPointMessage => ({
  index: point.index,
  term: point.term,
  configuration: configurationToMessage(point.configuration),
});

export const encodeSnapshotPoint = (point: SnapshotPoint): Uint8Array =>
  messages.log.SnapshotPoint.encode(snapshotPointToMessage(point)).finish();

/** Throws for bytes that `encodeSnapshotPoint` does not make. */
export const decodeSnapshotPoint = (bytes: Uint8Array): SnapshotPoint =>
  snapshotPointFromMessage(messages.log.SnapshotPoint.decode(bytes));

export const encodeHardState = ({ term, vote, commit }: HardState): Uint8Array =>
  messages.log.HardState.encode({ term, vote: vote ?? 0, commit }).finish();

/** Throws for bytes that `encodeHardState` does not make. */
export const decodeHardState = (bytes: Uint8Array): HardState => {
  const { term, vote, commit } = messages.log.HardState.decode(bytes);
  return {
    term: asTerm(term ?? 0),
    vote: vote === 0 ? undefined : asMemberId(vote),
    commit: asLogIndex(commit ?? 0),
  };
};

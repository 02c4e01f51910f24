/** One line for a message, the same in logs and in tests. Payloads are never printed. */

import type { Configuration, Entry, MemberId, Message } from './types.ts';

/** For example `voters 1, 2, 4; outgoing 1, 2, 3; learners 5; learners next 3`. */
export const describeConfiguration = (configuration: Configuration): string => {
  const parts: readonly (readonly [string, readonly MemberId[]])[] = [
    ['voters', configuration.voters],
    ['outgoing', configuration.votersOutgoing],
    ['learners', configuration.learners],
    ['learners next', configuration.learnersNext],
  ];
  const named = parts.filter(([, ids]) => ids.length > 0).map(([name, ids]) => `${name} ${ids.join(', ')}`);
  return named.length === 0 ? 'nobody' : named.join('; ');
};

const describeEntries = (entries: readonly Entry[]): string => {
  const [first, last] = [entries[0], entries.at(-1)];
  if (first === undefined || last === undefined) return 'no entries';
  let bytes = 0;
  for (const entry of entries) bytes += entry.payload.byteLength;
  const range =
    first === last
      ? `${first.index}@${first.term}`
      : `${first.index}@${first.term}..${last.index}@${last.term}`;
  const changes = entries.filter(({ kind }) => kind === 'configuration').map(({ index }) => index);
  const members = changes.length === 0 ? '' : `, members at ${changes.join(' and ')}`;
  return `entries ${range} (${bytes} bytes${members})`;
};

const describeBody = (message: Message): string => {
  switch (message.kind) {
    case 'pre_vote_request':
      return `for term ${message.campaignTerm}, last ${message.lastIndex}@${message.lastTerm}`;
    case 'pre_vote_response':
      return `for term ${message.campaignTerm} ${message.granted ? 'granted' : 'refused'}`;
    case 'vote_request':
      return `last ${message.lastIndex}@${message.lastTerm}${message.transfer ? ', transfer' : ''}`;
    case 'vote_response':
      return message.granted ? 'granted' : 'refused';
    case 'append_request': {
      const { previousIndex, previousTerm, entries, commit } = message;
      return `after ${previousIndex}@${previousTerm}, ${describeEntries(entries)}, commit ${commit}`;
    }
    case 'append_response': {
      const { outcome } = message;
      if (outcome.accepted) return `accepted up to ${outcome.matchIndex}`;
      return `rejected at ${outcome.rejectedIndex}, hint ${outcome.hintIndex}@${outcome.hintTerm}`;
    }
    case 'heartbeat_request':
      return `commit ${message.commit}, round ${message.readRound}, settled to ${message.settledTo}`;
    case 'heartbeat_response':
      return `round ${message.readRound}`;
    case 'install_snapshot':
      return `at ${message.snapshot.index}@${message.snapshot.term}, ${describeConfiguration(message.snapshot.configuration)}`;
    case 'read_request':
      return `context ${message.context}`;
    case 'read_response':
      return `context ${message.context} ${message.index === undefined ? 'refused' : `index ${message.index}`}`;
    case 'timeout_now':
      return '';
    default:
      return message satisfies never;
  }
};

/** For example `1→2 t3 heartbeat_request commit 7, round 0`. */
export const describeMessage = (message: Message): string =>
  `${message.from}→${message.to} t${message.term} ${message.kind} ${describeBody(message)}`.trimEnd();

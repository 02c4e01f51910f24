/** Raft's messages as protobuf and back. Decoding throws a RangeError for whatever raft could not have sent. */
import type { messages } from '../protocol/index.ts';
import { asLogIndex, asMemberId, asTerm } from '../raft/index.ts';
import type { Entry, EntryKind, Message, MessageBody } from '../raft/index.ts';
import { snapshotPointFromMessage, snapshotPointToMessage } from '../storage/index.ts';

type RaftProperties = messages.peer.RaftMessage.$Properties;
type Received = messages.peer.RaftMessage;

/** Of a number that has no type of its own. */
export const asWhole = (value: number): number => {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`${value} is not a whole number below 2^53`);
  return value;
};

const entryKindNumbers = { empty: 1, commands: 2, configuration: 3 } as const satisfies Record<
  EntryKind,
  number
>;
const entryKinds: readonly (EntryKind | undefined)[] = [undefined, 'empty', 'commands', 'configuration'];
const nothing = new Uint8Array(0);

const bodyToMessage = (message: Message): RaftProperties => {
  switch (message.kind) {
    case 'pre_vote_request': {
      const { campaignTerm, lastIndex, lastTerm } = message;
      return { preVoteRequest: { campaignTerm, lastIndex, lastTerm } };
    }
    case 'pre_vote_response':
      return { preVoteResponse: { campaignTerm: message.campaignTerm, granted: message.granted } };
    case 'vote_request': {
      const { lastIndex, lastTerm, transfer } = message;
      return { voteRequest: { lastIndex, lastTerm, transfer } };
    }
    case 'vote_response':
      return { voteResponse: { granted: message.granted } };
    case 'append_request': {
      const { previousIndex, previousTerm, commit } = message;
      const entries = message.entries.map(({ term, kind, payload }) => ({
        term,
        kind: entryKindNumbers[kind],
        payload,
      }));
      return { appendRequest: { previousIndex, previousTerm, commit, entries } };
    }
    case 'append_response': {
      const { outcome } = message;
      if (outcome.accepted) return { appendResponse: { accepted: true, matchIndex: outcome.matchIndex } };
      const { rejectedIndex, hintIndex, hintTerm } = outcome;
      return { appendResponse: { accepted: false, rejectedIndex, hintIndex, hintTerm } };
    }
    case 'heartbeat_request':
      return {
        heartbeatRequest: {
          commit: message.commit,
          readRound: asWhole(message.readRound),
          settledTo: message.settledTo,
        },
      };
    case 'heartbeat_response':
      return { heartbeatResponse: { readRound: asWhole(message.readRound) } };
    case 'install_snapshot':
      return { installSnapshot: { snapshot: snapshotPointToMessage(message.snapshot) } };
    case 'read_request':
      return { readRequest: { context: asWhole(message.context) } };
    case 'read_response': {
      const { context, index } = message;
      return { readResponse: { context: asWhole(context), index: index ?? 0, refused: index === undefined } };
    }
    case 'timeout_now':
      return { timeoutNow: {} };
    default: {
      const unknown: never = message;
      throw new TypeError(`unknown message ${JSON.stringify(unknown)}`);
    }
  }
};

export const raftToMessage = (message: Message): RaftProperties => {
  const properties = bodyToMessage(message);
  properties.from = message.from;
  properties.to = message.to;
  properties.term = message.term;
  return properties;
};

const appendRequest = (body: messages.peer.AppendRequest.$Properties): MessageBody => {
  const previousIndex = asLogIndex(body.previousIndex ?? 0);
  const received = body.entries ?? [];
  asLogIndex(previousIndex + received.length);
  const entries = received.map(({ term, kind: kindNumber, payload }, offset): Entry => {
    const kind = entryKinds[kindNumber ?? 0];
    if (kind === undefined) throw new RangeError(`an entry has the unknown kind ${kindNumber}`);
    return {
      term: asTerm(term ?? 0),
      index: asLogIndex(previousIndex + 1 + offset),
      kind,
      payload: payload ?? nothing,
    };
  });
  return {
    kind: 'append_request',
    previousIndex,
    previousTerm: asTerm(body.previousTerm ?? 0),
    commit: asLogIndex(body.commit ?? 0),
    entries,
  };
};

const appendResponse = (body: messages.peer.AppendResponse.$Properties): MessageBody => {
  const { accepted, matchIndex, rejectedIndex, hintIndex, hintTerm } = body;
  const ofAccepted = asLogIndex(matchIndex ?? 0);
  const ofRejected = [
    asLogIndex(rejectedIndex ?? 0),
    asLogIndex(hintIndex ?? 0),
    asTerm(hintTerm ?? 0),
  ] as const;
  if (accepted === true) {
    if (ofRejected.some((value) => value !== 0))
      throw new RangeError('an append is both accepted and rejected');
    return { kind: 'append_response', outcome: { accepted, matchIndex: ofAccepted } };
  }
  if (ofAccepted !== 0) throw new RangeError('an append is both rejected and accepted');
  const [rejected, hint, term] = ofRejected;
  return {
    kind: 'append_response',
    outcome: { accepted: false, rejectedIndex: rejected, hintIndex: hint, hintTerm: term },
  };
};

const votes = (message: Received): MessageBody | undefined => {
  const { preVoteRequest, preVoteResponse, voteRequest, voteResponse } = message;
  if (preVoteRequest) {
    return {
      kind: 'pre_vote_request',
      campaignTerm: asTerm(preVoteRequest.campaignTerm ?? 0),
      lastIndex: asLogIndex(preVoteRequest.lastIndex ?? 0),
      lastTerm: asTerm(preVoteRequest.lastTerm ?? 0),
    };
  }
  if (preVoteResponse) {
    const { campaignTerm, granted } = preVoteResponse;
    return { kind: 'pre_vote_response', campaignTerm: asTerm(campaignTerm ?? 0), granted: granted ?? false };
  }
  if (voteRequest) {
    return {
      kind: 'vote_request',
      lastIndex: asLogIndex(voteRequest.lastIndex ?? 0),
      lastTerm: asTerm(voteRequest.lastTerm ?? 0),
      transfer: voteRequest.transfer ?? false,
    };
  }
  return voteResponse ? { kind: 'vote_response', granted: voteResponse.granted ?? false } : undefined;
};

const others = (message: Received): MessageBody | undefined => {
  const { heartbeatRequest, heartbeatResponse, installSnapshot, readRequest, readResponse, timeoutNow } =
    message;
  if (heartbeatRequest) {
    const { commit, readRound, settledTo } = heartbeatRequest;
    return {
      kind: 'heartbeat_request',
      commit: asLogIndex(commit ?? 0),
      readRound: asWhole(readRound ?? 0),
      settledTo: asLogIndex(settledTo ?? 0),
    };
  }
  if (heartbeatResponse) {
    return { kind: 'heartbeat_response', readRound: asWhole(heartbeatResponse.readRound ?? 0) };
  }
  if (installSnapshot) {
    return { kind: 'install_snapshot', snapshot: snapshotPointFromMessage(installSnapshot.snapshot ?? {}) };
  }
  if (readRequest) return { kind: 'read_request', context: asWhole(readRequest.context ?? 0) };
  if (readResponse) {
    const index = asLogIndex(readResponse.index ?? 0);
    if (readResponse.refused && index !== 0) throw new RangeError('a read is both refused and answered');
    const refused = readResponse.refused ?? false;
    return {
      kind: 'read_response',
      context: asWhole(readResponse.context ?? 0),
      index: refused ? undefined : index,
    };
  }
  return timeoutNow ? { kind: 'timeout_now' } : undefined;
};

export const raftFromMessage = (message: Received): Message => {
  const { appendRequest: append, appendResponse: appended } = message;
  const body = append
    ? appendRequest(append)
    : appended
      ? appendResponse(appended)
      : (votes(message) ?? others(message));
  if (body === undefined) throw new RangeError('a message has no body');
  return {
    from: asMemberId(message.from ?? 0),
    to: asMemberId(message.to ?? 0),
    term: asTerm(message.term ?? 0),
    ...body,
  };
};

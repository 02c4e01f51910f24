/**
 * Server frames as agent.proto's messages and back. What is received is checked whole: a frame with anything wrong in
 * it is not to be trusted, so every fault is a PROTOCOL_ERROR.
 */
import assert from 'node:assert/strict';
import { keyProblem } from '../scopes/index.ts';
import { accessFromMessage, accessToMessage } from './access-messages.ts';
import { positionFromMessage, positionToMessage } from './client-frames.ts';
import {
  memberIdFromMessage,
  memberListFromMessage,
  memberListToMessage,
  snapshotPartFromMessage,
  snapshotPartToMessage,
  statusFromMessage,
  statusToMessage,
} from './cluster-messages.ts';
import {
  drainStandingFromMessage,
  drainStandingToMessage,
  rebalancedFromMessage,
  rebalancedToMessage,
} from './drain-messages.ts';
import type {
  Answer,
  AnswerBody,
  Goaway,
  ProtocolLimits,
  Push,
  ReceivedServerFrame,
  ServerFrame,
  Welcome,
} from './frames.ts';
import {
  changeFromMessage,
  failureFromMessage,
  failureToMessage,
  futureFromMessage,
  futureToMessage,
  given,
  incoming,
  incomingOptional,
  malformed,
  outgoing,
  writeResultFromMessage,
  writeResultToMessage,
} from './future-messages.ts';
import type { FutureMessage } from './future-messages.ts';
import { limits } from './futures.ts';
import type { Change, Future } from './futures.ts';
import type { messages } from './messages.ts';
import { isRequestId, shown } from './request-checks.ts';

export type ServerFrameMessage = messages.agent.ServerFrame.$Properties;
export type AnswerMessage = messages.agent.Answer.$Properties;
type PushMessage = messages.agent.Push.$Properties;
export type GoawayMessage = messages.agent.Goaway.$Properties;
type WelcomeMessage = messages.agent.Welcome.$Properties;
type LimitsMessage = messages.agent.Limits.$Properties;

// ---- to messages ----

export function assertNotEmpty(frame: ServerFrame): void {
  const { welcome, answers, pushes, goaway, revision, authExpiring } = frame;
  const something =
    welcome !== undefined ||
    answers.length > 0 ||
    pushes.length > 0 ||
    goaway !== undefined ||
    revision !== undefined ||
    authExpiring !== undefined;
  assert(something, 'A server frame with nothing in it was to be sent');
}

export function outgoingId(id: number): number {
  if (!isRequestId(id))
    assert.fail(`A frame to be sent names the request ${id}: ids are whole numbers, 1..2^53-1`);
  return id;
}

export function goawayToMessage(goaway: NonNullable<ServerFrame['goaway']>): GoawayMessage {
  const { graceMs, reason, endpoints = [], here } = goaway;
  return {
    graceMs: outgoing(graceMs),
    reason,
    ...(endpoints.length > 0 && { endpoints: [...endpoints] }),
    ...(here && { here }),
  };
}

function goawayFromMessage({ graceMs, reason, endpoints, here }: GoawayMessage): Goaway {
  return {
    graceMs: incoming(graceMs, 'goaway.grace_ms'),
    reason: reason ?? '',
    ...(endpoints !== undefined && endpoints !== null && endpoints.length > 0 && { endpoints }),
    ...(here === true && { here }),
  };
}

export function welcomeToMessage(welcome: Welcome): WelcomeMessage {
  const { clusterId, epoch, revision, serverId, serverName, principal, limits: granted, endpoints } = welcome;
  return {
    clusterId,
    epoch: outgoing(epoch),
    revision: outgoing(revision),
    serverId: outgoing(serverId),
    serverName,
    principal,
    limits: {
      frameBytesMax: outgoing(granted.frameBytesMax),
      valueBytesMax: outgoing(granted.valueBytesMax),
      requestsInFlightMax: outgoing(granted.requestsInFlightMax),
      subscriptionsMax: outgoing(granted.subscriptionsMax),
      operationsPerWriteMax: outgoing(granted.operationsPerWriteMax),
    },
    endpoints: [...endpoints],
  };
}

export function answerToMessage({ id, body }: Answer): AnswerMessage {
  const message: AnswerMessage = { id: outgoingId(id) };
  switch (body.kind) {
    case 'failed':
      message.error = failureToMessage(body.failure);
      break;
    case 'session_opened':
      message.sessionOpened = {};
      break;
    case 'session_closed':
      message.sessionClosed = {};
      break;
    case 'cancelled':
      message.cancelled = {};
      break;
    case 'authenticated':
      message.authenticated = { expiresInMs: outgoing(body.expiresInMs) };
      break;
    case 'written':
      message.write = writeResultToMessage(body.result);
      break;
    case 'got':
      message.get = { revision: outgoing(body.revision) };
      if (body.future !== undefined) message.get.future = futureToMessage(body.future);
      break;
    case 'listed':
      message.list = {
        revision: outgoing(body.revision),
        futures: body.futures.map(futureToMessage),
        next: body.next ?? '',
      };
      break;
    case 'awaited':
      message.await = { alternative: outgoing(body.alternative), futures: body.futures.map(futureToMessage) };
      break;
    case 'clock':
      message.clock = { clusterTimeMs: outgoing(body.clusterTimeMs) };
      break;
    case 'subscribed':
      message.subscribed = { position: positionToMessage(body.position), reset: body.reset };
      break;
    case 'status':
      message.status = statusToMessage(body.status);
      break;
    case 'members':
      message.memberList = memberListToMessage(body.list);
      break;
    case 'member_changed':
      message.memberChanged = { member: outgoing(body.member) };
      break;
    case 'leader_transferred':
      message.leaderTransferred = { member: outgoing(body.member) };
      break;
    case 'drained':
      message.drainServer = drainStandingToMessage(body.standing);
      break;
    case 'rebalanced':
      message.rebalance = rebalancedToMessage(body.rebalanced);
      break;
    case 'snapshot_part':
      message.snapshotPart = snapshotPartToMessage(body.part);
      break;
    case 'access_changed':
      message.aclChanged = { revision: outgoing(body.revision), unchanged: body.unchanged };
      break;
    case 'access':
      message.aclState = accessToMessage(body.access);
      break;
    default:
      body satisfies never;
  }
  return message;
}

// ---- from messages ----

/** Throws PROTOCOL_ERROR for whatever is not as a server of this version sends it. */
export function serverFrameFromMessage(message: ServerFrameMessage): ReceivedServerFrame {
  const answers = (message.answers ?? []).map(answerFromMessage);
  const pushes = (message.pushes ?? []).map(pushFromMessage);
  const revision = incomingOptional(message.revision, 'revision');
  const { welcome, goaway, authExpiring } = message;
  const something =
    given(welcome) ||
    answers.length > 0 ||
    pushes.length > 0 ||
    given(goaway) ||
    given(authExpiring) ||
    revision !== undefined;
  if (!something) throw malformed('the frame', 'has nothing in it');
  return {
    answers: answeredOnce(answers),
    pushes,
    ...(!given(welcome) ? undefined : { welcome: welcomeFromMessage(welcome) }),
    ...(!given(goaway) ? undefined : { goaway: goawayFromMessage(goaway) }),
    ...(revision === undefined ? undefined : { revision }),
    ...(!given(authExpiring)
      ? undefined
      : { authExpiring: { remainingMs: incoming(authExpiring.remainingMs, 'auth_expiring.remaining_ms') } }),
  };
}

/** Throws PROTOCOL_ERROR where one request is answered twice. */
export function answeredOnce(answers: readonly Answer[]): readonly Answer[] {
  if (answers.length > 1 && new Set(answers.map(({ id }) => id)).size < answers.length)
    throw malformed('the frame', 'answers one request twice');
  return answers;
}

function incomingId(value: number | null | undefined, field: string): number {
  const id = value ?? 0;
  if (!isRequestId(id)) throw malformed(field, `is ${id}: it must be the id of a request, 1..2^53-1`);
  return id;
}

function welcomeFromMessage(message: WelcomeMessage): Welcome {
  if (!given(message.clusterId) || message.clusterId === '')
    throw malformed('welcome.cluster_id', 'is missing');
  if (!given(message.limits)) throw malformed('welcome.limits', 'is missing');
  return {
    clusterId: message.clusterId,
    epoch: incoming(message.epoch, 'welcome.epoch'),
    revision: incoming(message.revision, 'welcome.revision'),
    serverId: incoming(message.serverId, 'welcome.server_id'),
    serverName: message.serverName ?? '',
    principal: message.principal ?? '',
    limits: limitsFromMessage(message.limits),
    endpoints: message.endpoints ?? [],
  };
}

function limitsFromMessage(message: LimitsMessage): ProtocolLimits {
  return {
    frameBytesMax: incoming(message.frameBytesMax, 'welcome.limits.frame_bytes_max'),
    valueBytesMax: incoming(message.valueBytesMax, 'welcome.limits.value_bytes_max'),
    requestsInFlightMax: incoming(message.requestsInFlightMax, 'welcome.limits.requests_in_flight_max'),
    subscriptionsMax: incoming(message.subscriptionsMax, 'welcome.limits.subscriptions_max'),
    operationsPerWriteMax: incoming(message.operationsPerWriteMax, 'welcome.limits.operations_per_write_max'),
  };
}

function answerFromMessage(message: AnswerMessage): Answer {
  return { id: incomingId(message.id, 'answer.id'), body: answerBodyFromMessage(message) };
}

function answerBodyFromMessage(message: AnswerMessage): AnswerBody {
  if (given(message.write)) return { kind: 'written', result: writeResultFromMessage(message.write) };
  if (given(message.await)) {
    const futures = (message.await.futures ?? []).map(receivedFuture);
    if (futures.length === 0) throw malformed('answer.await.futures', 'is empty');
    const alternative = incoming(message.await.alternative, 'answer.await.alternative');
    return { kind: 'awaited', alternative, futures };
  }
  if (given(message.get)) {
    const { future } = message.get;
    const revision = incoming(message.get.revision, 'answer.get.revision');
    return { kind: 'got', revision, future: !given(future) ? undefined : receivedFuture(future) };
  }
  if (given(message.list)) {
    const { futures, next } = message.list;
    return {
      kind: 'listed',
      revision: incoming(message.list.revision, 'answer.list.revision'),
      futures: (futures ?? []).map(receivedFuture),
      next: !given(next) || next === '' ? undefined : receivedKey('answer.list.next', next),
    };
  }
  if (given(message.error)) return { kind: 'failed', failure: failureFromMessage(message.error) };
  if (given(message.subscribed)) {
    const { position, reset } = message.subscribed;
    if (!given(position)) throw malformed('answer.subscribed.position', 'is missing');
    return {
      kind: 'subscribed',
      position: positionFromMessage(position, 'answer.subscribed.position'),
      reset: reset ?? false,
    };
  }
  if (given(message.clock)) {
    const clusterTimeMs = incoming(message.clock.clusterTimeMs, 'answer.clock.cluster_time_ms');
    return { kind: 'clock', clusterTimeMs };
  }
  if (given(message.status)) return { kind: 'status', status: statusFromMessage(message.status) };
  if (given(message.sessionOpened)) return { kind: 'session_opened' };
  if (given(message.sessionClosed)) return { kind: 'session_closed' };
  if (given(message.cancelled)) return { kind: 'cancelled' };
  if (given(message.authenticated)) {
    const expiresInMs = incoming(message.authenticated.expiresInMs, 'answer.authenticated.expires_in_ms');
    return { kind: 'authenticated', expiresInMs };
  }
  return clusterAnswerFromMessage(message);
}

function clusterAnswerFromMessage(message: AnswerMessage): AnswerBody {
  const { snapshotPart, memberList, memberChanged, leaderTransferred } = message;
  if (given(snapshotPart)) return { kind: 'snapshot_part', part: snapshotPartFromMessage(snapshotPart) };
  if (given(memberList)) return { kind: 'members', list: memberListFromMessage(memberList) };
  if (given(memberChanged)) {
    const member = memberIdFromMessage(memberChanged.member, 'answer.member_changed.member');
    return { kind: 'member_changed', member };
  }
  if (given(leaderTransferred)) {
    const member = memberIdFromMessage(leaderTransferred.member, 'answer.leader_transferred.member');
    return { kind: 'leader_transferred', member };
  }
  if (given(message.drainServer))
    return { kind: 'drained', standing: drainStandingFromMessage(message.drainServer) };
  if (given(message.rebalance))
    return { kind: 'rebalanced', rebalanced: rebalancedFromMessage(message.rebalance) };
  if (given(message.aclChanged)) {
    const revision = incoming(message.aclChanged.revision, 'answer.acl_changed.revision');
    return { kind: 'access_changed', revision, unchanged: message.aclChanged.unchanged ?? false };
  }
  if (given(message.aclState)) return { kind: 'access', access: accessFromMessage(message.aclState) };
  throw malformed('answer', 'has no body that this version knows');
}

function receivedKey(field: string, key: string): string {
  const problem = keyProblem(key);
  if (problem !== undefined) throw malformed(`${field} ${shown(key)}`, problem);
  return key;
}

function receivedFuture(message: FutureMessage): Future {
  return checkedFuture(futureFromMessage(message));
}

/** A future whose parts agree with its state. Throws PROTOCOL_ERROR for others. */
export function checkedFuture(future: Future): Future {
  receivedKey('a future with the key', future.key);
  const { key, state, value, rejection, generation } = future;
  if (generation === 0) throw malformed(`the future ${key}`, 'has no generation');
  if (value !== undefined && state !== 'resolved')
    throw malformed(`the future ${key}`, `is ${state} but has a value`);
  if (value !== undefined && value.length > limits.valueBytesMax) {
    throw malformed(
      `the future ${key}`,
      `has a value of ${value.length} bytes: at most ${limits.valueBytesMax} are allowed`,
    );
  }
  if ((rejection !== undefined) !== (state === 'rejected')) {
    throw malformed(
      `the future ${key}`,
      `is ${state} ${rejection === undefined ? 'without' : 'with'} a rejection`,
    );
  }
  return future;
}

function pushFromMessage(message: PushMessage): Push {
  const push: Push = {
    subscription: incomingId(message.subscription, 'push.subscription'),
    changes: (message.changes ?? []).map(receivedChange),
    revision: incoming(message.revision, 'push.revision'),
    caughtUp: message.caughtUp ?? false,
  };
  return !given(message.ended) ? push : { ...push, ended: failureFromMessage(message.ended) };
}

function receivedChange(message: messages.agent.Change.$Properties): Change {
  const change = changeFromMessage(message);
  if (change.kind === 'future') checkedFuture(change.future);
  else receivedKey('a deletion of', change.key);
  return change;
}

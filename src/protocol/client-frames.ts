/** Client frames as agent.proto's messages and back. Converts and checks the shape; limits are in request-checks.ts. */
import {
  aclApplyFromMessage,
  aclRevokeFromMessage,
  revocationFromMessage,
  revocationToMessage,
} from './access-messages.ts';
import {
  memberAddFromMessage,
  memberAddToMessage,
  snapshotReadFromMessage,
  snapshotReadToMessage,
  transferLeaderFromMessage,
} from './cluster-messages.ts';
import {
  drainServerFromMessage,
  drainServerToMessage,
  rebalanceFromMessage,
  rebalanceToMessage,
} from './drain-messages.ts';
import type { Failure } from './errors.ts';
import { FuturestoreError } from './errors.ts';
import type {
  ClientFrame,
  Hello,
  RefusedRequest,
  Request,
  RequestBody,
  SubscriptionStart,
} from './frames.ts';
import {
  given,
  incoming,
  incomingOptional,
  malformed,
  operationFromMessage,
  operationToMessage,
  outgoing,
} from './future-messages.ts';
import { limits } from './futures.ts';
import type { Operation, Position } from './futures.ts';
import type { messages } from './messages.ts';
import { helloProblem, isRequestId, requestProblem } from './request-checks.ts';

export type RequestMessage = messages.agent.Request.$Properties;
export type HelloMessage = messages.agent.Hello.$Properties;
export type ClientFrameMessage = messages.agent.ClientFrame.$Properties;
type PositionMessage = messages.agent.Position.$Properties;

/** No more requests than may be in flight make sense in one frame; it also bounds what a frame costs. */
export const requestsPerFrameMax = limits.requestsInFlightPerConnectionMax;

// ---- to messages ----

/** Throws a FuturestoreError with the code and text with which a server would refuse the request. */
export function clientFrameToMessage({ hello, requests }: ClientFrame): ClientFrameMessage {
  if (hello === undefined && requests.length === 0) throw malformed('a frame', 'needs a hello or a request');
  const message: ClientFrameMessage = { requests: checkedForSending(requests).map(requestToMessage) };
  if (hello !== undefined) {
    throwFailure(helloProblem(hello));
    message.hello = { clientName: hello.clientName, clientVersion: hello.clientVersion };
    if (hello.token !== undefined) message.hello.token = hello.token;
  }
  return message;
}

/** The requests of one frame, if a server would take all of them. Throws as `clientFrameToMessage`. */
export function checkedForSending(requests: readonly Request[]): readonly Request[] {
  if (requests.length > requestsPerFrameMax) {
    throw malformed('a frame', `has ${requests.length} requests: at most ${requestsPerFrameMax} are allowed`);
  }
  const ids = new RequestIds();
  for (const request of requests) {
    ids.add(request.id);
    throwFailure(requestProblem(request));
  }
  return requests;
}

function throwFailure(problem: Failure | undefined): void {
  if (problem !== undefined) throw new FuturestoreError(problem.code, problem.message);
}

/** Of one that has been checked. */
export function requestToMessage(request: Request): RequestMessage {
  const message: RequestMessage = { id: request.id };
  if (request.timeoutMs !== undefined) message.timeoutMs = request.timeoutMs;
  addBody(message, request.body);
  return message;
}

function addBody(message: RequestMessage, body: RequestBody): void {
  switch (body.kind) {
    case 'open_session': {
      const { session, graceMs, resume } = body;
      message.openSession = { sessionId: Buffer.from(session, 'hex'), graceMs, resume };
      break;
    }
    case 'close_session':
      message.closeSession = {};
      break;
    case 'write': {
      const { sequence, answeredBelow, operations } = body;
      message.write = { sequence, answeredBelow, operations: operations.map(operationToMessage) };
      break;
    }
    case 'get':
      message.get = { key: body.key, stale: body.stale };
      break;
    case 'list': {
      const { pattern, after, limit, values, stale } = body;
      message.list = { pattern, after, limit, values, stale };
      break;
    }
    case 'await':
      message.await = { alternatives: body.alternatives.map((keys) => ({ keys: [...keys] })) };
      if (body.leastGeneration !== undefined) message.await.leastGeneration = body.leastGeneration;
      break;
    case 'subscribe':
      message.subscribe = { patterns: [...body.patterns] };
      if (body.start.kind === 'after') message.subscribe.position = positionToMessage(body.start.position);
      if (body.start.kind === 'only_new') message.subscribe.onlyNew = true;
      break;
    case 'cancel':
      message.cancel = { requestId: body.request };
      break;
    case 'authenticate':
      message.authenticate = { token: body.token };
      break;
    case 'clock':
      message.clock = {};
      break;
    case 'status':
      message.status = {};
      break;
    case 'member_list':
      message.memberList = {};
      break;
    case 'member_add':
      message.memberAdd = memberAddToMessage(body);
      break;
    case 'member_promote':
      message.memberPromote = { member: body.member };
      break;
    case 'member_remove':
      message.memberRemove = { member: body.member };
      break;
    case 'transfer_leader':
      message.transferLeader = { member: body.member ?? 0 };
      break;
    case 'drain_server':
      message.drainServer = drainServerToMessage(body);
      break;
    case 'rebalance':
      message.rebalance = rebalanceToMessage(body);
      break;
    case 'snapshot_read':
      message.snapshotRead = snapshotReadToMessage(body);
      break;
    case 'acl_apply': {
      const { document, ifRevision, force } = body;
      message.aclApply = { document, force, ...(ifRevision !== undefined && { ifRevision }) };
      break;
    }
    case 'acl_get':
      message.aclGet = {};
      break;
    case 'acl_revoke':
      message.aclRevoke = {
        revocation: revocationToMessage(body.revocation),
        untilMs: body.untilMs ?? 0,
      };
      break;
    case 'acl_restore':
      message.aclRestore = { revocation: revocationToMessage(body.revocation) };
      break;
    default:
      body satisfies never;
  }
}

export function positionToMessage({ clusterId, epoch, revision }: Position): PositionMessage {
  return { clusterId, epoch: outgoing(epoch), revision: outgoing(revision) };
}

// ---- from messages ----

/** Collects the ids of a frame's requests. */
export class RequestIds {
  #greatest = 0;
  /** Made when ids do not come in ascending order; until then none can be there twice. */
  #all: Set<number> | undefined;
  readonly #ascending: number[] = [];

  /** Throws PROTOCOL_ERROR for an id that cannot be answered to: none, out of range, or one that is there twice. */
  add(id: number): void {
    if (!isRequestId(id))
      throw malformed('a request', `has the id ${id}: it must be a whole number, 1..2^53-1`);
    if (this.#all === undefined && id > this.#greatest) {
      this.#greatest = id;
      this.#ascending.push(id);
      return;
    }
    this.#all ??= new Set(this.#ascending);
    if (this.#all.has(id)) throw malformed('a frame', `has two requests with the id ${id}`);
    this.#all.add(id);
  }
}

/** Throws PROTOCOL_ERROR: without a proper hello there is no connection to answer on. */
export function helloFromMessage(message: HelloMessage): Hello {
  const hello: Hello = {
    clientName: message.clientName ?? '',
    clientVersion: message.clientVersion ?? '',
    ...(given(message.token) && { token: message.token }),
  };
  const problem = helloProblem(hello);
  if (problem !== undefined) throw new FuturestoreError('PROTOCOL_ERROR', problem.message);
  return hello;
}

/** The request, or why it is refused. The id has been checked. */
export function receiveRequest(id: number, message: RequestMessage): Request | RefusedRequest {
  try {
    const timeoutMs = incomingOptional(message.timeoutMs, 'timeout_ms');
    const body = bodyFromMessage(message);
    return checkedRequest(timeoutMs === undefined ? { id, body } : { id, timeoutMs, body });
  } catch (error) {
    if (!(error instanceof FuturestoreError)) throw error;
    return { id, refused: { code: 'INVALID_ARGUMENT', message: error.message } };
  }
}

/** The request, or why it is refused: what it asks for is not within the limits. */
export function checkedRequest(request: Request): Request | RefusedRequest {
  const refused = requestProblem(request);
  return refused === undefined ? request : { id: request.id, refused };
}

function bodyFromMessage(message: RequestMessage): RequestBody {
  if (given(message.write)) {
    const { sequence, answeredBelow, operations } = message.write;
    return {
      kind: 'write',
      sequence: incoming(sequence, 'write.sequence'),
      answeredBelow: incoming(answeredBelow, 'write.answered_below'),
      operations: operationsFromMessages(operations ?? []),
    };
  }
  if (given(message.await)) {
    const alternatives = (message.await.alternatives ?? []).map(({ keys }) => keys ?? []);
    const leastGeneration = incomingOptional(message.await.leastGeneration, 'await.least_generation');
    return leastGeneration === undefined
      ? { kind: 'await', alternatives }
      : { kind: 'await', alternatives, leastGeneration };
  }
  if (given(message.get))
    return { kind: 'get', key: message.get.key ?? '', stale: message.get.stale ?? false };
  if (given(message.list)) return listFromMessage(message.list);
  if (given(message.subscribe)) {
    return {
      kind: 'subscribe',
      patterns: message.subscribe.patterns ?? [],
      start: startFromMessage(message.subscribe),
    };
  }
  if (given(message.cancel))
    return { kind: 'cancel', request: incoming(message.cancel.requestId, 'cancel.request_id') };
  if (given(message.authenticate)) return { kind: 'authenticate', token: message.authenticate.token ?? '' };
  if (given(message.openSession)) return openSessionFromMessage(message.openSession);
  if (given(message.closeSession)) return { kind: 'close_session' };
  if (given(message.clock)) return { kind: 'clock' };
  if (given(message.status)) return { kind: 'status' };
  return clusterBodyFromMessage(message);
}

function clusterBodyFromMessage(message: RequestMessage): RequestBody {
  if (given(message.memberList)) return { kind: 'member_list' };
  if (given(message.memberAdd)) return memberAddFromMessage(message.memberAdd);
  if (given(message.memberPromote)) {
    return {
      kind: 'member_promote',
      member: incoming(message.memberPromote.member, 'member_promote.member'),
    };
  }
  if (given(message.memberRemove))
    return { kind: 'member_remove', member: incoming(message.memberRemove.member, 'member_remove.member') };
  if (given(message.transferLeader)) return transferLeaderFromMessage(message.transferLeader);
  if (given(message.drainServer)) return drainServerFromMessage(message.drainServer);
  if (given(message.rebalance)) return rebalanceFromMessage(message.rebalance);
  if (given(message.snapshotRead)) return snapshotReadFromMessage(message.snapshotRead);
  if (given(message.aclApply)) return aclApplyFromMessage(message.aclApply);
  if (given(message.aclGet)) return { kind: 'acl_get' };
  if (given(message.aclRevoke)) return aclRevokeFromMessage(message.aclRevoke);
  if (given(message.aclRestore)) {
    const revocation = revocationFromMessage(message.aclRestore.revocation, 'acl_restore.revocation');
    return { kind: 'acl_restore', revocation };
  }
  throw malformed(
    'body',
    'is missing: the request must be one of open_session, write, get, list, await, subscribe, …',
  );
}

function operationsFromMessages(
  received: readonly messages.agent.Operation.$Properties[],
): readonly Operation[] {
  const operations: Operation[] = [];
  // Beyond the limit the write is refused for their number; one more is enough to see it.
  const count = Math.min(received.length, limits.operationsPerWriteMax + 1);
  for (let index = 0; index < count; index += 1) {
    try {
      operations.push(operationFromMessage(received[index] ?? {}));
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      throw new FuturestoreError('PROTOCOL_ERROR', `write.operations[${index}].${error.message}`, {
        cause: error,
      });
    }
  }
  return operations;
}

function listFromMessage(message: messages.agent.List.$Properties): RequestBody {
  const limit = incoming(message.limit, 'list.limit');
  return {
    kind: 'list',
    pattern: message.pattern ?? '',
    after: message.after ?? '',
    limit: limit === 0 ? limits.listPageFuturesDefault : limit,
    values: message.values ?? false,
    stale: message.stale ?? false,
  };
}

function openSessionFromMessage(message: messages.agent.OpenSession.$Properties): RequestBody {
  const bytes = message.sessionId;
  const whole = bytes?.length === limits.sessionIdBytes;
  return {
    kind: 'open_session',
    session: whole ? Buffer.from(bytes).toString('hex') : '',
    graceMs: incoming(message.graceMs, 'open_session.grace_ms'),
    resume: message.resume ?? false,
  };
}

function startFromMessage(message: messages.agent.Subscribe.$Properties): SubscriptionStart {
  if (given(message.position)) {
    return { kind: 'after', position: positionFromMessage(message.position, 'subscribe.position') };
  }
  if (message.onlyNew === true) return { kind: 'only_new' };
  if (message.onlyNew === false)
    throw malformed('subscribe.only_new', 'is false: leave it away for the present state first');
  return { kind: 'present_state' };
}

export function positionFromMessage(message: PositionMessage, field: string): Position {
  return {
    clusterId: message.clusterId ?? '',
    epoch: incoming(message.epoch, `${field}.epoch`),
    revision: incoming(message.revision, `${field}.revision`),
  };
}

/**
 * The limits of what a client may send, checked on the plain data: a decoder refuses a request with what is found
 * here, an encoder refuses to send it. Texts name the field as the .proto files do, and show the value unless it is
 * the payload of a future.
 */
import { isSegment, keyProblem, parsePattern, parseSerial, type Revocation } from '../scopes/index.ts';
import { isAgentsUrl, isMemberName, isPeersAddress } from './addresses.ts';
import type { ErrorCode, Failure } from './errors.ts';
import type { Hello, Request, RequestBody, SubscriptionStart } from './frames.ts';
import { limits } from './futures.ts';
import type { Operation, Preconditions } from './futures.ts';

const shownCharactersMax = 64;
const printableAscii = /^[\x20-\x7e]*$/;
const rejectionCodePattern = /^[A-Z][A-Z0-9_]{0,63}$/;
const sessionPattern = /^[0-9a-f]{32}$/;
const tokenPattern = /^[\w-]+\.[\w-]+\.[\w-]*$/;
const clusterIdLengthMax = 128;

/** A received text for an error's message: quoted, shortened, with nothing unprintable. */
export function shown(text: string): string {
  const quoted = JSON.stringify(text.slice(0, shownCharactersMax)).replaceAll(/[^\x20-\x7e]/g, '?');
  return text.length > shownCharactersMax ? `${quoted}…` : quoted;
}

const failure = (code: ErrorCode, message: string): Failure => ({ code, message });
const invalid = (message: string): Failure => failure('INVALID_ARGUMENT', message);

/** What is wrong with the hello; undefined: nothing. */
export function helloProblem(hello: Hello): Failure | undefined {
  return (
    clientTextProblem('hello.client_name', hello.clientName) ??
    clientTextProblem('hello.client_version', hello.clientVersion) ??
    (hello.token === undefined ? undefined : tokenProblem('hello.token', hello.token))
  );
}

function clientTextProblem(field: string, text: string): Failure | undefined {
  if (text.length <= limits.clientNameBytesMax && printableAscii.test(text)) return undefined;
  return invalid(
    `${field} is ${shown(text)}: it must be at most ${limits.clientNameBytesMax} printable ASCII characters`,
  );
}

/** Never shows the token. */
function tokenProblem(field: string, token: string): Failure | undefined {
  if (token.length <= limits.tokenBytesMax && tokenPattern.test(token)) return undefined;
  return invalid(
    `${field} has ${token.length} characters: it must be a JWT, three parts of base64url with dots between, at most ${limits.tokenBytesMax}`,
  );
}

export function isRequestId(id: number): boolean {
  return Number.isSafeInteger(id) && id >= 1;
}

/** What is wrong with the request, its id apart; undefined: nothing. */
export function requestProblem(request: Request): Failure | undefined {
  const { timeoutMs } = request;
  return (
    (timeoutMs === undefined ? undefined : durationProblem('timeout_ms', timeoutMs)) ??
    bodyProblem(request.body)
  );
}

function bodyProblem(body: RequestBody): Failure | undefined {
  switch (body.kind) {
    case 'open_session':
      return openSessionProblem(body.session, body.graceMs);
    case 'write':
      return writeProblem(body.sequence, body.answeredBelow, body.operations);
    case 'get':
      return keyFailure('get.key', body.key);
    case 'list':
      return listProblem(body.pattern, body.after, body.limit);
    case 'await':
      return awaitProblem(body.alternatives, body.leastGeneration);
    case 'subscribe':
      return subscribeProblem(body.patterns, body.start);
    case 'cancel':
      return isRequestId(body.request)
        ? undefined
        : invalid(`cancel.request_id is ${body.request}: it must be the id of a request, 1..2^53-1`);
    case 'authenticate':
      return tokenProblem('authenticate.token', body.token);
    case 'member_add':
      return memberAddProblem(body);
    case 'member_promote':
      return memberIdProblem('member_promote.member', body.member);
    case 'member_remove':
      return memberIdProblem('member_remove.member', body.member);
    case 'transfer_leader':
      return body.member === undefined ? undefined : memberIdProblem('transfer_leader.member', body.member);
    case 'drain_server':
      return (
        memberIdProblem('drain_server.member', body.member) ??
        (body.graceMs === undefined ? undefined : graceProblem('drain_server.grace_ms', body.graceMs))
      );
    case 'rebalance':
      return body.graceMs === undefined ? undefined : graceProblem('rebalance.grace_ms', body.graceMs);
    case 'snapshot_read':
      return snapshotReadProblem(body.snapshot, body.part);
    case 'acl_apply':
      return aclApplyProblem(body.document, body.ifRevision);
    case 'acl_revoke':
      return (
        revocationProblem('acl_revoke.revocation', body.revocation) ??
        (body.untilMs === undefined ? undefined : numberProblem('acl_revoke.until_ms', body.untilMs, 1))
      );
    case 'acl_restore':
      return revocationProblem('acl_restore.revocation', body.revocation);
    case 'close_session':
    case 'clock':
    case 'status':
    case 'member_list':
    case 'acl_get':
      return undefined;
    default:
      return body satisfies never;
  }
}

function keyFailure(field: string, key: string): Failure | undefined {
  const problem = keyProblem(key);
  return problem === undefined ? undefined : failure('INVALID_KEY', `${field} ${shown(key)} ${problem}`);
}

function patternFailure(field: string, text: string): Failure | undefined {
  const parsed = parsePattern(text);
  return parsed.ok ? undefined : failure('INVALID_KEY', `${field} ${shown(text)} ${parsed.problem}`);
}

function numberProblem(field: string, value: number, min: number): Failure | undefined {
  if (Number.isSafeInteger(value) && value >= min) return undefined;
  return invalid(`${field} is ${value}: it must be a whole number, ${min}..2^53-1`);
}

function durationProblem(field: string, milliseconds: number): Failure | undefined {
  if (Number.isSafeInteger(milliseconds) && milliseconds >= 1 && milliseconds <= limits.durationMsMax)
    return undefined;
  return invalid(
    `${field} is ${milliseconds}: it must be a whole number of milliseconds, 1..${limits.durationMsMax}`,
  );
}

function graceProblem(field: string, milliseconds: number): Failure | undefined {
  const { departureGraceMsMax } = limits;
  if (Number.isSafeInteger(milliseconds) && milliseconds >= 1 && milliseconds <= departureGraceMsMax)
    return undefined;
  return invalid(
    `${field} is ${milliseconds}: it must be a whole number of milliseconds, 1..${departureGraceMsMax}, or 0 for what the server thinks best`,
  );
}

function openSessionProblem(session: string, graceMs: number): Failure | undefined {
  const { sessionIdBytes, sessionGraceMsMin, sessionGraceMsMax } = limits;
  if (!sessionPattern.test(session))
    return invalid(
      `open_session.session_id is not ${sessionIdBytes} bytes: make ${sessionIdBytes} random ones`,
    );
  if (Number.isSafeInteger(graceMs) && graceMs >= sessionGraceMsMin && graceMs <= sessionGraceMsMax)
    return undefined;
  return invalid(
    `open_session.grace_ms is ${graceMs}: it must be ${sessionGraceMsMin}..${sessionGraceMsMax} milliseconds`,
  );
}

function listProblem(pattern: string, after: string, limit: number): Failure | undefined {
  const problem =
    patternFailure('list.pattern', pattern) ?? (after === '' ? undefined : keyFailure('list.after', after));
  if (problem !== undefined) return problem;
  if (Number.isSafeInteger(limit) && limit >= 1 && limit <= limits.listPageFuturesMax) return undefined;
  return invalid(
    `list.limit is ${limit}: it must be 1..${limits.listPageFuturesMax}, or 0 for ${limits.listPageFuturesDefault}`,
  );
}

function awaitProblem(
  alternatives: readonly (readonly string[])[],
  leastGeneration: number | undefined,
): Failure | undefined {
  const { awaitAlternativesMax, awaitKeysMax } = limits;
  if (alternatives.length === 0)
    return invalid('await.alternatives is empty: name at least one key to wait for');
  if (alternatives.length > awaitAlternativesMax) {
    return failure(
      'LIMIT_EXCEEDED',
      `await.alternatives has ${alternatives.length} entries: at most ${awaitAlternativesMax} are allowed`,
    );
  }
  let keys = 0;
  for (const alternative of alternatives) keys += alternative.length;
  if (keys > awaitKeysMax) {
    return failure(
      'LIMIT_EXCEEDED',
      `await.alternatives has ${keys} keys together: at most ${awaitKeysMax} are allowed`,
    );
  }
  for (const [index, alternative] of alternatives.entries()) {
    if (alternative.length === 0)
      return invalid(`await.alternatives[${index}].keys is empty: name at least one key`);
    for (const [place, key] of alternative.entries()) {
      const field = `await.alternatives[${index}].keys[${place}]`;
      const problem = keyFailure(field, key);
      if (problem !== undefined) return problem;
      if (alternative.indexOf(key) !== place)
        return invalid(`${field} ${shown(key)} is there twice: name each key once`);
    }
  }
  return leastGeneration === undefined
    ? undefined
    : numberProblem('await.least_generation', leastGeneration, 1);
}

function subscribeProblem(patterns: readonly string[], start: SubscriptionStart): Failure | undefined {
  const { patternsPerSubscriptionMax } = limits;
  if (patterns.length === 0) return invalid('subscribe.patterns is empty: name at least one pattern');
  if (patterns.length > patternsPerSubscriptionMax) {
    return failure(
      'LIMIT_EXCEEDED',
      `subscribe.patterns has ${patterns.length} entries: at most ${patternsPerSubscriptionMax} are allowed`,
    );
  }
  for (const [index, pattern] of patterns.entries()) {
    const problem = patternFailure(`subscribe.patterns[${index}]`, pattern);
    if (problem !== undefined) return problem;
  }
  if (start.kind !== 'after') return undefined;
  const { clusterId, epoch, revision } = start.position;
  if (clusterId === '' || clusterId.length > clusterIdLengthMax || !printableAscii.test(clusterId)) {
    return invalid(
      `subscribe.position.cluster_id is ${shown(clusterId)}: pass a position back as the server gave it`,
    );
  }
  return (
    numberProblem('subscribe.position.epoch', epoch, 0) ??
    numberProblem('subscribe.position.revision', revision, 0)
  );
}

function memberIdProblem(field: string, member: number): Failure | undefined {
  if (Number.isSafeInteger(member) && member >= 1 && member <= limits.memberIdMax) return undefined;
  return invalid(`${field} is ${member}: it must be the id of a server, 1..${limits.memberIdMax}`);
}

function memberAddProblem(body: Extract<RequestBody, { kind: 'member_add' }>): Failure | undefined {
  const { name, peersAddress, agentsUrl, replaces } = body;
  if (!isMemberName(name)) {
    return invalid(
      `member_add.name is ${shown(name)}: it must be 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit`,
    );
  }
  if (!isPeersAddress(peersAddress)) {
    return invalid(
      `member_add.peers_address is ${shown(peersAddress)}: it must be where other servers reach it, written host:port`,
    );
  }
  if (!isAgentsUrl(agentsUrl)) {
    return invalid(
      `member_add.agents_url is ${shown(agentsUrl)}: it must be where agents reach it, written wss://host:port`,
    );
  }
  return replaces === undefined ? undefined : memberIdProblem('member_add.replaces', replaces);
}

function aclApplyProblem(document: Uint8Array, ifRevision: number | undefined): Failure | undefined {
  const { policyDocumentBytesMax } = limits;
  if (document.length === 0) return invalid('acl_apply.document is empty: give a policy document');
  if (document.length > policyDocumentBytesMax) {
    return failure(
      'LIMIT_EXCEEDED',
      `acl_apply.document has ${document.length} bytes: at most ${policyDocumentBytesMax} are allowed`,
    );
  }
  return ifRevision === undefined ? undefined : numberProblem('acl_apply.if_revision', ifRevision, 0);
}

/** What is wrong with a revocation; undefined: nothing. */
function revocationProblem(field: string, revocation: Revocation): Failure | undefined {
  const { realm } = revocation;
  if (!isSegment(realm) || realm.includes(':'))
    return invalid(`${field}.realm is ${shown(realm)}: it must be the name of a realm`);
  switch (revocation.kind) {
    case 'certificate':
      if (parseSerial(revocation.serial) === revocation.serial) return undefined;
      return invalid(
        `${field}.serial is ${shown(revocation.serial)}: it must be lower-case hexadecimal digits, the first not 0`,
      );
    case 'principal':
      return isSegment(revocation.name) ? undefined : nameProblem(field, revocation.name);
    case 'token': {
      const { tokenId } = revocation;
      const { tokenIdBytesMax } = limits;
      if (tokenId !== '' && tokenId.length <= tokenIdBytesMax && printableAscii.test(tokenId))
        return undefined;
      return invalid(
        `${field}.token_id is ${shown(tokenId)}: it must be 1..${tokenIdBytesMax} printable ASCII characters`,
      );
    }
    case 'issued_before': {
      const { name, atMs } = revocation;
      if (name !== undefined && !isSegment(name)) return nameProblem(`${field}.issued_before`, name);
      return numberProblem(`${field}.issued_before.at_ms`, atMs, 1);
    }
    default:
      return revocation satisfies never;
  }
}

const nameProblem = (field: string, name: string): Failure =>
  invalid(`${field}.name is ${shown(name)}: it must be a principal's name without its realm`);

function snapshotReadProblem(snapshot: number | undefined, part: number): Failure | undefined {
  if (snapshot === undefined) {
    if (part === 0) return undefined;
    return invalid(
      `snapshot_read.part is ${part} of no snapshot: begin with part 0, and name the snapshot as its answer does`,
    );
  }
  return numberProblem('snapshot_read.snapshot', snapshot, 1) ?? numberProblem('snapshot_read.part', part, 0);
}

function writeProblem(
  sequence: number,
  answeredBelow: number,
  operations: readonly Operation[],
): Failure | undefined {
  const problem =
    numberProblem('write.sequence', sequence, 1) ?? numberProblem('write.answered_below', answeredBelow, 0);
  if (problem !== undefined) return problem;
  if (answeredBelow > sequence) {
    return invalid(
      `write.answered_below is ${answeredBelow}, above the write's own sequence ${sequence}, whose answer is still to come`,
    );
  }
  if (operations.length === 0) return invalid('write.operations is empty: name at least one operation');
  if (operations.length > limits.operationsPerWriteMax) {
    return failure(
      'LIMIT_EXCEEDED',
      `write.operations has more than ${limits.operationsPerWriteMax} entries: send them as several writes`,
    );
  }
  for (let index = 0; index < operations.length; index += 1) {
    const operation = operations[index];
    const found = operation === undefined ? undefined : operationProblem(operation);
    if (found !== undefined) {
      return { code: found.code, message: `write.operations[${index}].${found.message}`, operation: index };
    }
  }
  return undefined;
}

/** What is wrong with the operation; undefined: nothing. The message begins with the field's name. */
export function operationProblem(operation: Operation): Failure | undefined {
  return (
    keyFailure('key', operation.key) ??
    preconditionsProblem(operation.preconditions) ??
    effectProblem(operation)
  );
}

function preconditionsProblem({ ifRevision, ifGeneration, ifAbsent }: Preconditions): Failure | undefined {
  if (ifRevision === undefined && ifGeneration === undefined) return undefined;
  if (ifAbsent === true)
    return invalid('if_absent contradicts if_revision and if_generation: an absent key has neither');
  // Zero is what other stores call "absent".
  if (ifRevision === 0 || ifGeneration === 0)
    return invalid(
      'if_revision or if_generation is 0: both start at 1; for a key that must not be there use if_absent',
    );
  return (
    (ifRevision === undefined ? undefined : numberProblem('if_revision', ifRevision, 1)) ??
    (ifGeneration === undefined ? undefined : numberProblem('if_generation', ifGeneration, 1))
  );
}

function effectProblem(operation: Operation): Failure | undefined {
  switch (operation.kind) {
    case 'declare':
      return operation.deadlineMs === undefined
        ? undefined
        : durationProblem('declare.deadline_ms', operation.deadlineMs);
    case 'resolve': {
      const { value, contentType, ttlMs } = operation;
      if (value.length > limits.valueBytesMax) {
        return failure(
          'VALUE_TOO_LARGE',
          `resolve.value has ${value.length} bytes: at most ${limits.valueBytesMax} are allowed`,
        );
      }
      if (
        contentType === '' ||
        contentType.length > limits.contentTypeBytesMax ||
        !printableAscii.test(contentType)
      ) {
        return invalid(
          `resolve.content_type is ${shown(contentType)}: it must be 1..${limits.contentTypeBytesMax} printable ASCII characters`,
        );
      }
      return ttlMs === undefined ? undefined : durationProblem('resolve.ttl_ms', ttlMs);
    }
    case 'reject': {
      const { rejection, ttlMs } = operation;
      if (!rejectionCodePattern.test(rejection.code)) {
        return invalid(
          `reject.code is ${shown(rejection.code)}: it must be A-Z first, then A-Z, 0-9 and _, at most ${limits.rejectionCodeBytesMax} characters`,
        );
      }
      if (textBytesAbove(rejection.message, limits.rejectionMessageBytesMax)) {
        return invalid(`reject.message is longer than ${limits.rejectionMessageBytesMax} bytes of UTF-8`);
      }
      if (loneSurrogate.test(rejection.message))
        return invalid('reject.message is no valid Unicode text: it has half a surrogate pair');
      return ttlMs === undefined ? undefined : durationProblem('reject.ttl_ms', ttlMs);
    }
    case 'touch':
      return durationProblem('touch.ttl_ms', operation.ttlMs);
    case 'delete':
      return undefined;
    default:
      return operation satisfies never;
  }
}

/** Has no UTF-8 form: an encoder would quietly put another character in its place. */
export const loneSurrogate = /\p{Surrogate}/u;

function textBytesAbove(text: string, bytesMax: number): boolean {
  if (text.length > bytesMax) return true;
  return text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax;
}

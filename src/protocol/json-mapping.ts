/**
 * protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/) of agent.proto's messages: names in
 * lowerCamelCase (the .proto's own are accepted), 64-bit numbers as strings (numbers are accepted), enums by name,
 * bytes as base64. Stricter than the mapping asks: nothing unknown, nothing twice, no second member of a oneof.
 */
import { malformed } from './future-messages.ts';
import type { JsonObject, JsonValue } from './json-text.ts';
import { messages } from './messages.ts';
import { loneSurrogate, shown } from './request-checks.ts';

type Scalar = 'uint64' | 'uint32' | 'bool' | 'string' | 'bytes' | 'FutureState';

interface Field {
  readonly type: Scalar | MessageName;
  /** implicit: the default is not written and means absent. */
  readonly presence: 'implicit' | 'explicit' | 'repeated';
  /** A member of the message's oneof (none has two). */
  readonly oneof: boolean;
}

const scalar = (type: Scalar): Field => ({ type, presence: 'implicit', oneof: false });
const optional = (type: Scalar): Field => ({ type, presence: 'explicit', oneof: false });
const part = (type: MessageName): Field => ({ type, presence: 'explicit', oneof: false });
const many = (type: Scalar | MessageName): Field => ({ type, presence: 'repeated', oneof: false });
const either = (type: Scalar | MessageName): Field => ({ type, presence: 'explicit', oneof: true });

export type MessageName = Exclude<keyof typeof messages.agent, 'FutureState'>;

/** agent.proto's messages, field by field in its order. */
export const schemas: Readonly<Record<MessageName, Readonly<Record<string, Field>>>> = {
  ClientFrame: { hello: part('Hello'), requests: many('Request') },
  Hello: { clientName: scalar('string'), clientVersion: scalar('string'), token: optional('string') },
  Request: {
    id: scalar('uint64'),
    timeoutMs: optional('uint64'),
    openSession: either('OpenSession'),
    closeSession: either('CloseSession'),
    write: either('Write'),
    get: either('Get'),
    list: either('List'),
    await: either('Await'),
    subscribe: either('Subscribe'),
    cancel: either('Cancel'),
    status: either('Status'),
    memberList: either('MemberList'),
    memberAdd: either('MemberAdd'),
    memberPromote: either('MemberPromote'),
    memberRemove: either('MemberRemove'),
    transferLeader: either('TransferLeader'),
    snapshotRead: either('SnapshotRead'),
    aclApply: either('AclApply'),
    aclGet: either('AclGet'),
    aclRevoke: either('AclRevoke'),
    aclRestore: either('AclRestore'),
    authenticate: either('Authenticate'),
    clock: either('Clock'),
    drainServer: either('DrainServer'),
    rebalance: either('Rebalance'),
  },
  Authenticate: { token: scalar('string') },
  OpenSession: { sessionId: scalar('bytes'), graceMs: scalar('uint64'), resume: scalar('bool') },
  CloseSession: {},
  Write: { sequence: scalar('uint64'), answeredBelow: scalar('uint64'), operations: many('Operation') },
  Operation: {
    key: scalar('string'),
    ifRevision: optional('uint64'),
    ifGeneration: optional('uint64'),
    ifAbsent: scalar('bool'),
    declare: either('Declare'),
    resolve: either('Resolve'),
    reject: either('Reject'),
    delete: either('Delete'),
    touch: either('Touch'),
  },
  Declare: { renew: scalar('bool'), deadlineMs: optional('uint64'), tied: scalar('bool') },
  Resolve: {
    value: scalar('bytes'),
    contentType: scalar('string'),
    sensitive: scalar('bool'),
    ttlMs: optional('uint64'),
    supersede: scalar('bool'),
  },
  Reject: {
    code: scalar('string'),
    message: scalar('string'),
    ttlMs: optional('uint64'),
    supersede: scalar('bool'),
  },
  Delete: {},
  Touch: { ttlMs: scalar('uint64') },
  Get: { key: scalar('string'), stale: scalar('bool') },
  List: {
    pattern: scalar('string'),
    after: scalar('string'),
    limit: scalar('uint32'),
    values: scalar('bool'),
    stale: scalar('bool'),
  },
  Await: { alternatives: many('KeySet'), leastGeneration: optional('uint64') },
  KeySet: { keys: many('string') },
  Subscribe: { patterns: many('string'), position: either('Position'), onlyNew: either('bool') },
  Position: { clusterId: scalar('string'), epoch: scalar('uint64'), revision: scalar('uint64') },
  Cancel: { requestId: scalar('uint64') },
  Clock: {},
  Status: {},
  MemberList: {},
  MemberAdd: {
    name: scalar('string'),
    peersAddress: scalar('string'),
    agentsUrl: scalar('string'),
    replaces: scalar('uint64'),
  },
  MemberPromote: { member: scalar('uint64') },
  MemberRemove: { member: scalar('uint64') },
  TransferLeader: { member: scalar('uint64') },
  DrainServer: { member: scalar('uint64'), graceMs: scalar('uint64'), end: scalar('bool') },
  Rebalance: { graceMs: scalar('uint64') },
  SnapshotRead: { snapshot: scalar('uint64'), part: scalar('uint64') },
  AclApply: { document: scalar('bytes'), ifRevision: optional('uint64'), force: scalar('bool') },
  AclGet: {},
  AclRevoke: { revocation: part('Revocation'), untilMs: scalar('uint64') },
  AclRestore: { revocation: part('Revocation') },
  Revocation: {
    realm: scalar('string'),
    serial: either('string'),
    name: either('string'),
    tokenId: either('string'),
    issuedBefore: either('IssuedBefore'),
  },
  IssuedBefore: { atMs: scalar('uint64'), name: scalar('string') },
  ServerFrame: {
    welcome: part('Welcome'),
    answers: many('Answer'),
    pushes: many('Push'),
    goaway: part('Goaway'),
    revision: optional('uint64'),
    authExpiring: part('AuthExpiring'),
  },
  AuthExpiring: { remainingMs: scalar('uint64') },
  Welcome: {
    clusterId: scalar('string'),
    epoch: scalar('uint64'),
    revision: scalar('uint64'),
    serverId: scalar('uint64'),
    serverName: scalar('string'),
    principal: scalar('string'),
    limits: part('Limits'),
    endpoints: many('string'),
  },
  Limits: {
    frameBytesMax: scalar('uint64'),
    valueBytesMax: scalar('uint64'),
    requestsInFlightMax: scalar('uint64'),
    subscriptionsMax: scalar('uint64'),
    operationsPerWriteMax: scalar('uint64'),
  },
  Answer: {
    id: scalar('uint64'),
    error: either('Error'),
    sessionOpened: either('SessionOpened'),
    sessionClosed: either('SessionClosed'),
    write: either('WriteResult'),
    get: either('GetResult'),
    list: either('ListResult'),
    await: either('AwaitResult'),
    subscribed: either('Subscribed'),
    status: either('StatusResult'),
    cancelled: either('Cancelled'),
    memberList: either('MemberListResult'),
    memberChanged: either('MemberChanged'),
    leaderTransferred: either('LeaderTransferred'),
    snapshotPart: either('SnapshotPart'),
    aclChanged: either('AclChanged'),
    aclState: either('AclState'),
    authenticated: either('Authenticated'),
    clock: either('ClockResult'),
    drainServer: either('DrainResult'),
    rebalance: either('RebalanceResult'),
  },
  Authenticated: { expiresInMs: scalar('uint64') },
  Error: {
    code: scalar('string'),
    message: scalar('string'),
    retryable: scalar('bool'),
    operation: optional('uint32'),
    retryAfterMs: optional('uint64'),
  },
  ClockResult: { clusterTimeMs: scalar('uint64') },
  AclChanged: { revision: scalar('uint64'), unchanged: scalar('bool') },
  AclState: { revision: scalar('uint64'), document: scalar('bytes'), revocations: many('RevocationRecord') },
  RevocationRecord: { revocation: part('Revocation'), revision: scalar('uint64'), untilMs: scalar('uint64') },
  SessionOpened: {},
  SessionClosed: {},
  Cancelled: {},
  WriteResult: { revision: scalar('uint64'), results: many('OperationResult') },
  OperationResult: {
    generation: scalar('uint64'),
    state: scalar('FutureState'),
    revision: scalar('uint64'),
    unchanged: scalar('bool'),
  },
  Future: {
    key: scalar('string'),
    generation: scalar('uint64'),
    state: scalar('FutureState'),
    revision: scalar('uint64'),
    value: optional('bytes'),
    contentType: scalar('string'),
    sensitive: scalar('bool'),
    rejection: part('Rejection'),
    producer: scalar('string'),
    changedAtMs: scalar('uint64'),
    expiresAtMs: optional('uint64'),
    deadlineAtMs: optional('uint64'),
  },
  Rejection: { code: scalar('string'), message: scalar('string') },
  GetResult: { revision: scalar('uint64'), future: part('Future') },
  ListResult: { revision: scalar('uint64'), futures: many('Future'), next: scalar('string') },
  AwaitResult: { alternative: scalar('uint32'), futures: many('Future') },
  Subscribed: { position: part('Position'), reset: scalar('bool') },
  Push: {
    subscription: scalar('uint64'),
    changes: many('Change'),
    revision: scalar('uint64'),
    caughtUp: scalar('bool'),
    ended: part('Error'),
  },
  Change: { revision: scalar('uint64'), future: either('Future'), deleted: either('string') },
  Goaway: {
    graceMs: scalar('uint64'),
    reason: scalar('string'),
    endpoints: many('string'),
    here: scalar('bool'),
  },
  StatusResult: {
    clusterId: scalar('string'),
    epoch: scalar('uint64'),
    revision: scalar('uint64'),
    serverId: scalar('uint64'),
    members: many('MemberStatus'),
  },
  MemberListResult: {
    members: many('Member'),
    changePending: scalar('bool'),
    leader: scalar('uint64'),
  },
  Member: {
    id: scalar('uint64'),
    name: scalar('string'),
    peersAddress: scalar('string'),
    agentsUrl: scalar('string'),
    standing: scalar('string'),
    wanted: scalar('string'),
    reachable: scalar('bool'),
    lag: scalar('uint64'),
    joined: scalar('bool'),
    draining: scalar('bool'),
  },
  MemberChanged: { member: scalar('uint64') },
  LeaderTransferred: { member: scalar('uint64') },
  DrainResult: {
    member: scalar('uint64'),
    draining: scalar('bool'),
    agents: scalar('uint64'),
    graceMs: scalar('uint64'),
    leader: scalar('uint64'),
  },
  RebalanceResult: { servers: many('ServerShare'), graceMs: scalar('uint64') },
  ServerShare: {
    member: scalar('uint64'),
    name: scalar('string'),
    agents: scalar('uint64'),
    moving: scalar('uint64'),
    leftOut: scalar('bool'),
  },
  SnapshotPart: {
    snapshot: scalar('uint64'),
    part: scalar('uint64'),
    records: scalar('bytes'),
    checksum: scalar('uint32'),
    last: scalar('bool'),
    recordsTotal: scalar('uint64'),
    clusterId: scalar('string'),
    epoch: scalar('uint64'),
    revision: scalar('uint64'),
    index: scalar('uint64'),
    term: scalar('uint64'),
  },
  MemberStatus: {
    id: scalar('uint64'),
    name: scalar('string'),
    role: scalar('string'),
    term: scalar('uint64'),
    commitIndex: scalar('uint64'),
    appliedIndex: scalar('uint64'),
    keys: scalar('uint64'),
    connections: scalar('uint64'),
    agentsUrl: scalar('string'),
    version: scalar('string'),
    heardMsAgo: optional('uint64'),
    lag: scalar('uint64'),
    draining: scalar('bool'),
  },
};

interface NamedField extends Field {
  readonly name: string;
}

const inSnakeCase = (name: string): string =>
  name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Each message's fields by both of their names. */
const fieldsByName: ReadonlyMap<string, ReadonlyMap<string, NamedField>> = new Map(
  Object.entries(schemas).map(([message, fields]) => [
    message,
    new Map(
      Object.entries(fields).flatMap(([name, field]) => [
        [name, { ...field, name }],
        [inSnakeCase(name), { ...field, name }],
      ]),
    ),
  ]),
);

const base64Pattern = /^[A-Za-z0-9+/_-]*={0,2}$/;
const uint32Max = 0xffff_ffff;
const states: ReadonlyMap<string, number> = new Map(
  Object.entries(messages.agent.FutureState).flatMap(([name, state]) =>
    typeof state === 'number' ? [[name, state]] : [],
  ),
);
const stateNames: ReadonlyMap<number, string> = new Map([...states].map(([name, state]) => [state, name]));

// ---- from JSON ----

/**
 * The message's fields as the generated code would have decoded them (absent ones are not there). `place` names it in
 * errors. Throws PROTOCOL_ERROR.
 */
export function messageFromJson(name: MessageName, value: JsonValue, place: string): object {
  if (!(value instanceof Map)) throw malformed(place, 'is no JSON object');
  const members: JsonObject = value;
  const fields = fieldsByName.get(name);
  const message: Record<string, unknown> = {};
  let chosen: string | undefined;
  for (const [memberName, member] of members) {
    const field = fields?.get(memberName);
    if (field === undefined)
      throw malformed(place, `has a field that this version does not know: ${shown(memberName)}`);
    if (Object.hasOwn(message, field.name))
      throw malformed(place, `has the field ${field.name} under both of its names`);
    if (member === null) continue;
    if (field.oneof) {
      if (chosen !== undefined)
        throw malformed(place, `has both ${chosen} and ${field.name}: only one of them may be there`);
      chosen = field.name;
    }
    message[field.name] = fieldFromJson(field, member, `${place}.${inSnakeCase(field.name)}`);
  }
  return message;
}

function fieldFromJson(field: NamedField, value: JsonValue, place: string): unknown {
  if (field.presence !== 'repeated') return valueFromJson(field.type, value, place);
  if (!Array.isArray(value)) throw malformed(place, 'is no JSON array');
  const values: readonly JsonValue[] = value;
  return values.map((element, index) => valueFromJson(field.type, element, `${place}[${index}]`));
}

function valueFromJson(type: Field['type'], value: JsonValue, place: string): unknown {
  switch (type) {
    case 'uint64':
      return numberFromJson(value, Number.MAX_SAFE_INTEGER, place);
    case 'uint32':
      return numberFromJson(value, uint32Max, place);
    case 'bool':
      if (typeof value !== 'boolean') throw malformed(place, 'is neither true nor false');
      return value;
    case 'string':
      if (typeof value !== 'string') throw malformed(place, 'is no string');
      if (loneSurrogate.test(value))
        throw malformed(place, 'is no valid Unicode text: it has half a surrogate pair');
      return value;
    case 'bytes':
      return bytesFromJson(value, place);
    case 'FutureState': {
      const state = typeof value === 'string' ? states.get(value) : undefined;
      if (state === undefined) throw malformed(place, 'is no known state: pass its name');
      return state;
    }
    default:
      return messageFromJson(type, value, place);
  }
}

/** A number that is out of range is left for the check of the field, which then says the same in both codecs. */
function numberFromJson(value: JsonValue, max: number, place: string): number {
  const number = typeof value === 'string' && /^-?[0-9]{1,40}$/.test(value) ? Number(value) : value;
  if (typeof number !== 'number') throw malformed(place, 'is no number');
  return number > max ? Number.POSITIVE_INFINITY : number;
}

function bytesFromJson(value: JsonValue, place: string): Uint8Array {
  if (typeof value !== 'string' || !base64Pattern.test(value)) throw malformed(place, 'is no base64 string');
  const unpadded = value.replace(/=+$/, '').length;
  if (unpadded % 4 === 1 || (unpadded < value.length && value.length % 4 !== 0)) {
    throw malformed(place, 'is no whole base64 string');
  }
  return Buffer.from(value, 'base64');
}

// ---- to JSON ----

/** The message, as the functions `…ToMessage` make them, as a value for JSON.stringify. */
export function messageToJson(name: MessageName, message: object): object {
  const json: Record<string, unknown> = {};
  const values = new Map(Object.entries(message));
  for (const [fieldName, field] of Object.entries(schemas[name])) {
    const value: unknown = values.get(fieldName);
    if (value === undefined || value === null) continue;
    if (Array.isArray(value)) {
      const elements: readonly unknown[] = value;
      if (elements.length > 0) json[fieldName] = elements.map((element) => valueToJson(field.type, element));
    } else if (field.presence === 'explicit' || !isDefault(value))
      json[fieldName] = valueToJson(field.type, value);
  }
  return json;
}

function isDefault(value: unknown): boolean {
  return (
    value === 0 || value === false || value === '' || (value instanceof Uint8Array && value.length === 0)
  );
}

function valueToJson(type: Field['type'], value: unknown): unknown {
  switch (type) {
    case 'uint64':
      return String(value);
    case 'bytes':
      return value instanceof Uint8Array
        ? Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64')
        : value;
    case 'FutureState':
      return typeof value === 'number' ? stateNames.get(value) : value;
    case 'uint32':
    case 'bool':
    case 'string':
      return value;
    default:
      return typeof value === 'object' && value !== null ? messageToJson(type, value) : value;
  }
}

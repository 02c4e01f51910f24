/** The records of the state as bytes: what is kept on disk, sent in snapshots, and compared between replicas. */
import {
  encodeBriefly,
  encodeMessage,
  encodeWith,
  FuturestoreError,
  failureFromMessage,
  failureToMessage,
  futureFromMessage,
  incoming,
  messages,
  outgoing,
  partsWithoutBound,
  readFuture,
  revocationFromMessage,
  revocationToMessage,
  StrictReader,
  writeFuture,
  writeResultFromMessage,
  writeWriteResult,
  type Future,
  type PlainWriter,
  type RevocationRecord,
} from '../protocol/index.ts';
import { keyProblem } from '../scopes/index.ts';
import { subjectFromMessage, subjectToMessage } from './access-codec.ts';
import { assert, isGiven } from './assert.ts';
import { ExpiryGroups, type ExpiryGroup } from './expiry-groups.ts';
import type { KeyRecord } from './future-table.ts';
import { asBuffer, sessionFromBytes, sessionToBytes } from './log-codec.ts';
import type { Remembered } from './remembered-answers.ts';
import type { Session } from './sessions.ts';
import type { MemberRecord, SessionId, Subject } from './types.ts';
import { ticketKeyBytes } from './ticket-keys.ts';
import type { TicketKeys } from './ticket-keys.ts';

/** SessionRecord.answers: field 9, length-delimited. */
const answersTag = (9 << 3) | 2;
/** SessionRecord.subject: field 10, length-delimited. */
const subjectTag = (10 << 3) | 2;
/** FutureRecord's future, created_revision and tied_session: fields 1, 2 and 3. */
const futureTag = (1 << 3) | 2;
const createdRevisionTag = 2 << 3;
const tiedSessionTag = (3 << 3) | 2;
const payerTag = (5 << 3) | 2;
/** RememberedAnswer's sequence and result: fields 1 and 2. */
const sequenceTag = 1 << 3;
const resultTag = (2 << 3) | 2;
/** Of so many answers in one session the bytes are kept: their record is written anew with each of its writes. */
const manyAnswers = 64;
const noBytes = new Uint8Array(0);

/** The state's own numbers. */
export interface Counters {
  revision: number;
  timeMs: number;
  epoch: number;
  /** Deletions up to this revision are forgotten. */
  forgottenUpTo: number;
  /** The highest generation of a forgotten deletion. */
  generationFloor: number;
  /** The highest id that the log gave to a member, or showed as one; 0: none. */
  lastMember: number;
  /** Of the last applied configuration entry, ascending; empty: there was none, and who is a member is not known here. */
  members: readonly number[];
}

export interface ServerState {
  readonly member: number;
  readonly run: number;
  /** Empty: the run has not been announced yet. */
  readonly diskId: Uint8Array;
  /** The last command about members or access that this run asked for; undefined: there was none. */
  readonly change: MemberChange | undefined;
}

interface MemberChange {
  readonly request: number;
  /** 0: it was refused, or about access. */
  readonly member: number;
}

/** Where a record is in the state's keyspace. */
export const recordKeys = {
  future: (key: string): string => `f/${key}`,
  session: (id: SessionId): string => `s/${id}`,
  server: (member: number): string => `m/${member}`,
  /** A member and what is wanted of it. */
  member: (member: number): string => `w/${member}`,
  policies: 'p/document',
  /** As `revocationKey` gives it. */
  revocation: (key: string): string => `r/${key}`,
  /** 16 digits hold every safe integer. */
  expiry: (revision: number): string => `e/${String(revision).padStart(16, '0')}`,
  ticketKeys: 'ticket_keys',
  counters: 'state',
} as const;

export const encodeKeyRecord = (record: KeyRecord): Uint8Array => {
  const { future, tombstone } = record;
  if (future !== undefined) return encodeBriefly(writeFutureRecord, record);
  assert(tombstone !== undefined, 'a key is neither there nor deleted');
  return encodeMessage(messages.log.FutureRecord, {
    future: {
      key: record.key,
      generation: outgoing(record.lastGeneration),
      revision: outgoing(tombstone.revision),
      changedAtMs: outgoing(tombstone.atMs),
    },
    deleted: true,
  });
};

/** By hand, as it is done for each write; the bytes are those of the generated code. */
const writeFutureRecord = (
  writer: PlainWriter,
  { future, createdRevision, tied, payer }: KeyRecord,
): void => {
  assert(future !== undefined, 'the record of a deletion is written as that of a future');
  writer.uint32(futureTag).fork();
  writeFuture(writer, future);
  writer.ldelim();
  if (createdRevision !== 0) writer.uint32(createdRevisionTag).uint64(outgoing(createdRevision));
  if (tied !== undefined) writer.uint32(tiedSessionTag).bytes(sessionToBytes(tied.id));
  if (payer !== undefined) writer.uint32(payerTag).string(payer);
};

export const encodeSession = (session: Session): Uint8Array => encodeBriefly(writeSession, session);

const writeSession = (writer: PlainWriter, session: Session): void => {
  messages.log.SessionRecord.encode(
    {
      sessionId: sessionToBytes(session.id),
      principal: session.principal,
      graceMs: outgoing(session.graceMs),
      member: outgoing(session.member),
      run: outgoing(session.run),
      connection: outgoing(session.connection),
      expiresAtMs: outgoing(session.expiresAtMs),
      answeredBelow: outgoing(session.answeredBelow),
    },
    writer,
  );
  const answers = session.answers?.inOrder ?? [];
  for (const remembered of answers) {
    writer.uint32(answersTag);
    if (answers.length < manyAnswers && remembered.encoded === undefined) {
      writer.fork();
      writeRemembered(writer, remembered);
      writer.ldelim();
    } else {
      remembered.encoded ??= encodeWith(writeRemembered, remembered);
      writer.bytes(remembered.encoded);
    }
  }
  if (session.subject !== undefined) {
    messages.log.Subject.encode(subjectToMessage(session.subject), writer.uint32(subjectTag).fork());
    writer.ldelim();
  }
};

const writeRemembered = (writer: PlainWriter, { sequence, answer }: Remembered): void => {
  if (answer.kind === 'written') {
    if (sequence !== 0) writer.uint32(sequenceTag).uint64(outgoing(sequence));
    writer.uint32(resultTag).fork();
    writeWriteResult(writer, answer.result);
    writer.ldelim();
  } else {
    const error = failureToMessage(answer.failure);
    messages.log.RememberedAnswer.encode({ sequence: outgoing(sequence), error }, writer);
  }
};

export const encodeServer = ({ member, run, diskId, change }: ServerState): Uint8Array =>
  encodeMessage(messages.log.ServerRecord, {
    member: outgoing(member),
    run: outgoing(run),
    diskId,
    ...(change && { changeRequest: outgoing(change.request), changedMember: outgoing(change.member) }),
  });

export const encodeTicketKeys = ({ number, keys, madeAtMs }: TicketKeys): Uint8Array =>
  encodeMessage(messages.log.TicketKeysRecord, {
    number: outgoing(number),
    keys,
    madeAtMs: outgoing(madeAtMs),
  });

const wantedNumbers = { learner: 1, voter: 2, removed: 3 } as const satisfies Record<
  MemberRecord['wanted'],
  number
>;
const wantedOf: readonly (MemberRecord['wanted'] | undefined)[] = [undefined, 'learner', 'voter', 'removed'];

export const encodeMember = ({ member, name, peersAddress, agentsUrl, wanted }: MemberRecord): Uint8Array =>
  encodeMessage(messages.log.MemberRecord, {
    member: outgoing(member),
    name,
    peersAddress,
    agentsUrl,
    wanted: wantedNumbers[wanted],
  });

export const encodeExpiry = ({ revision, atMs, keys, generations }: ExpiryGroup): Uint8Array =>
  encodeMessage(messages.log.ExpiryRecord, {
    revision: outgoing(revision),
    atMs: outgoing(atMs),
    keys,
    generations,
  });

export const encodePolicies = (revision: number, document: Uint8Array, strictQuotas: boolean): Uint8Array =>
  encodeMessage(messages.log.AccessRecord, {
    revision: outgoing(revision),
    document,
    ...(strictQuotas && { strictQuotas }),
  });

export const encodeRevocation = ({ revocation, revision, untilMs }: RevocationRecord): Uint8Array =>
  encodeMessage(messages.agent.RevocationRecord, {
    revocation: revocationToMessage(revocation),
    revision: outgoing(revision),
    untilMs: outgoing(untilMs ?? 0),
  });

export const encodeCounters = (counters: Counters): Uint8Array =>
  encodeMessage(messages.log.StateRecord, {
    revision: outgoing(counters.revision),
    timeMs: outgoing(counters.timeMs),
    epoch: outgoing(counters.epoch),
    tombstonesFloor: outgoing(counters.forgottenUpTo),
    generationFloor: outgoing(counters.generationFloor),
    lastMember: outgoing(counters.lastMember),
    members: counters.members.map(outgoing),
  });

// ---- back ----

interface LoadedKey {
  readonly key: string;
  /** undefined: a tombstone. */
  readonly future: Future | undefined;
  readonly generation: number;
  readonly revision: number;
  readonly createdRevision: number;
  readonly changedAtMs: number;
  readonly tiedSession: SessionId | undefined;
  readonly payer: string | undefined;
}

export interface LoadedSession {
  readonly id: SessionId;
  readonly principal: string;
  readonly graceMs: number;
  readonly member: number;
  readonly run: number;
  readonly connection: number;
  readonly expiresAtMs: number;
  readonly answeredBelow: number;
  readonly answers: readonly Remembered[];
  readonly subject: Subject | undefined;
}

/** Names the record by its kind and key, never by what is in it. */
export const damaged = (recordKey: string, problem: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `The record ${JSON.stringify(recordKey)} of the state ${problem}: replace this member, the others have its data`,
    cause === undefined ? undefined : { cause },
  );

const check = (recordKey: string, condition: boolean, problem: string): void => {
  if (!condition) throw damaged(recordKey, problem);
};

/** Gives what `decode` gives; whatever it throws becomes DATA_DAMAGED. */
const decoding = <T>(recordKey: string, decode: () => T): T => {
  try {
    return decode();
  } catch (cause) {
    if (cause instanceof FuturestoreError && cause.code === 'DATA_DAMAGED') throw cause;
    throw damaged(recordKey, 'cannot be decoded', cause);
  }
};

/** 'f/' and the key. */
const isOfKey = (recordKey: string, key: string): boolean =>
  recordKey.length === key.length + 2 && recordKey.startsWith('f/') && recordKey.endsWith(key);

/** A future that is tied to nobody, by hand: nearly all records of a large state are such. undefined: another record. */
const readPlainKeyRecord = (recordKey: string, bytes: Uint8Array): LoadedKey | undefined => {
  const reader = new StrictReader(bytes, partsWithoutBound);
  if (reader.len === 0 || reader.tag() !== futureTag) return undefined;
  const length = reader.size();
  const future = readFuture(reader, reader.pos + length);
  if (future === undefined || reader.pos >= reader.len || reader.tag() !== createdRevisionTag)
    return undefined;
  const createdRevision = reader.uint64();
  if (reader.pos !== reader.len || createdRevision === Number.POSITIVE_INFINITY) return undefined;
  const { key, generation, revision, changedAtMs } = future;
  checkKeyRecord(recordKey, key, generation, revision);
  check(recordKey, createdRevision > 0 && createdRevision <= revision, beganLate);
  checkFuture(recordKey, future);
  return {
    key,
    future,
    generation,
    revision,
    createdRevision,
    changedAtMs,
    tiedSession: undefined,
    payer: undefined,
  };
};

const beganLate = 'began after its last change';

const checkKeyRecord = (recordKey: string, key: string, generation: number, revision: number): void => {
  check(recordKey, isOfKey(recordKey, key), 'holds another key');
  check(recordKey, keyProblem(key) === undefined, 'has a key that is none');
  check(recordKey, generation > 0 && revision > 0, 'has no generation or no revision');
};

export const decodeKeyRecord = (recordKey: string, bytes: Uint8Array): LoadedKey => {
  try {
    return readPlainKeyRecord(recordKey, bytes) ?? decodeAnyKeyRecord(recordKey, bytes);
  } catch (error) {
    if (error instanceof FuturestoreError) throw error;
    // Broken bytes: what is wrong with them is found by the generated code.
    return decodeAnyKeyRecord(recordKey, bytes);
  }
};

const decodeAnyKeyRecord = (recordKey: string, bytes: Uint8Array): LoadedKey =>
  decoding(recordKey, () => {
    const message = messages.log.FutureRecord.decode(asBuffer(bytes));
    const futureMessage = message.future ?? {};
    const key = futureMessage.key ?? '';
    const deleted = message.deleted ?? false;
    const future = deleted ? undefined : futureFromMessage(futureMessage);
    const generation = incoming(futureMessage.generation, 'generation');
    const revision = incoming(futureMessage.revision, 'revision');
    const createdRevision = incoming(message.createdRevision, 'created_revision');
    checkKeyRecord(recordKey, key, generation, revision);
    check(recordKey, deleted || (createdRevision > 0 && createdRevision <= revision), beganLate);
    const tied = message.tiedSession ?? noBytes;
    const tiedSession = tied.length === 0 ? undefined : sessionFromBytes(tied, 'tied_session');
    check(recordKey, tiedSession === undefined || future?.state === 'pending', 'is tied though not pending');
    if (future !== undefined) checkFuture(recordKey, future);
    const payer = message.payer === undefined || message.payer === '' ? undefined : message.payer;
    const settled = future?.state === 'resolved' || future?.state === 'rejected';
    check(recordKey, payer === undefined || settled, 'is paid for though not settled');
    const changedAtMs = incoming(futureMessage.changedAtMs, 'changed_at_ms');
    return { key, future, generation, revision, createdRevision, changedAtMs, tiedSession, payer };
  });

const checkFuture = (recordKey: string, future: Future): void => {
  const { state, value, rejection } = future;
  check(recordKey, (state === 'resolved') === (value !== undefined), `is ${state} with a wrong value`);
  check(
    recordKey,
    (state === 'rejected') === (rejection !== undefined),
    `is ${state} with a wrong rejection`,
  );
  check(recordKey, state === 'pending' || future.deadlineAtMs === undefined, `is ${state} with a deadline`);
  check(recordKey, state !== 'pending' || future.expiresAtMs === undefined, 'is pending and expires');
  check(recordKey, future.producer !== '', 'has no producer');
};

export const decodeSession = (recordKey: string, bytes: Uint8Array): LoadedSession =>
  decoding(recordKey, () => {
    const message = messages.log.SessionRecord.decode(asBuffer(bytes));
    const id = sessionFromBytes(message.sessionId, 'session_id');
    check(recordKey, recordKey === recordKeys.session(id), 'holds another session');
    const session: LoadedSession = {
      id,
      principal: message.principal ?? '',
      graceMs: incoming(message.graceMs, 'grace_ms'),
      member: incoming(message.member, 'member'),
      run: incoming(message.run, 'run'),
      connection: incoming(message.connection, 'connection'),
      expiresAtMs: incoming(message.expiresAtMs, 'expires_at_ms'),
      answeredBelow: incoming(message.answeredBelow, 'answered_below'),
      answers: (message.answers ?? []).map(rememberedFromMessage),
      subject: isGiven(message.subject) ? subjectFromMessage(message.subject, 'subject') : undefined,
    };
    check(recordKey, session.principal !== '', 'belongs to no principal');
    check(recordKey, session.member === 0 || session.expiresAtMs === 0, 'is attached and expires');
    check(
      recordKey,
      session.member !== 0 || session.expiresAtMs >= session.graceMs,
      'was detached before time began',
    );
    let least = session.answeredBelow;
    for (const { sequence } of session.answers) {
      check(recordKey, sequence >= least, 'has answers out of order');
      least = sequence + 1;
    }
    return session;
  });

const rememberedFromMessage = (message: messages.log.RememberedAnswer.$Properties): Remembered => {
  const sequence = incoming(message.sequence, 'answers.sequence');
  const { result, error } = message;
  if (isGiven(result)) {
    return {
      sequence,
      answer: { kind: 'written', result: writeResultFromMessage(result) },
      encoded: undefined,
    };
  }
  if (isGiven(error)) {
    return { sequence, answer: { kind: 'failed', failure: failureFromMessage(error) }, encoded: undefined };
  }
  throw new FuturestoreError('PROTOCOL_ERROR', `answer ${sequence} is neither a result nor an error`);
};

export const decodeServer = (recordKey: string, bytes: Uint8Array): ServerState =>
  decoding(recordKey, () => {
    const message = messages.log.ServerRecord.decode(asBuffer(bytes));
    const member = incoming(message.member, 'member');
    check(recordKey, member > 0 && recordKey === recordKeys.server(member), 'holds another server');
    const request = incoming(message.changeRequest, 'change_request');
    const changed = incoming(message.changedMember, 'changed_member');
    check(recordKey, request > 0 || changed === 0, 'has changed a member and was not asked to');
    return {
      member,
      run: incoming(message.run, 'run'),
      diskId: new Uint8Array(message.diskId ?? noBytes),
      change: request === 0 ? undefined : { request, member: changed },
    };
  });

export const decodeTicketKeys = (recordKey: string, bytes: Uint8Array): TicketKeys =>
  decoding(recordKey, () => {
    const message = messages.log.TicketKeysRecord.decode(asBuffer(bytes));
    const keys = new Uint8Array(message.keys ?? noBytes);
    const number = incoming(message.number, 'number');
    check(recordKey, number > 0 && keys.length === ticketKeyBytes, 'holds no keys that could be used');
    return { number, keys, madeAtMs: incoming(message.madeAtMs, 'made_at_ms') };
  });

export const decodeMember = (recordKey: string, bytes: Uint8Array): MemberRecord =>
  decoding(recordKey, () => {
    const message = messages.log.MemberRecord.decode(asBuffer(bytes));
    const member = incoming(message.member, 'member');
    const wanted = wantedOf[message.wanted ?? 0];
    if (member === 0 || recordKey !== recordKeys.member(member))
      throw damaged(recordKey, 'holds another member');
    if (wanted === undefined) throw damaged(recordKey, 'wants nothing that this version knows');
    return {
      member,
      name: message.name ?? '',
      peersAddress: message.peersAddress ?? '',
      agentsUrl: message.agentsUrl ?? '',
      wanted,
    };
  });

export const decodePolicies = (
  recordKey: string,
  bytes: Uint8Array,
): { readonly revision: number; readonly document: Uint8Array; readonly strictQuotas: boolean } =>
  decoding(recordKey, () => {
    const message = messages.log.AccessRecord.decode(asBuffer(bytes));
    const revision = incoming(message.revision, 'revision');
    const document = new Uint8Array(message.document ?? noBytes);
    check(recordKey, (revision === 0) === (document.length === 0), 'has policies of no revision');
    const strictQuotas = message.strictQuotas ?? false;
    check(recordKey, revision > 0 || !strictQuotas, 'has quotas without policies');
    return { revision, document, strictQuotas };
  });

export const decodeRevocation = (recordKey: string, bytes: Uint8Array): RevocationRecord =>
  decoding(recordKey, () => {
    const message = messages.agent.RevocationRecord.decode(asBuffer(bytes));
    const untilMs = incoming(message.untilMs, 'until_ms');
    return {
      revocation: revocationFromMessage(message.revocation, 'revocation'),
      revision: incoming(message.revision, 'revision'),
      untilMs: untilMs === 0 ? undefined : untilMs,
    };
  });

export const decodeExpiry = (recordKey: string, bytes: Uint8Array): ExpiryGroup =>
  decoding(recordKey, () => {
    const message = messages.log.ExpiryRecord.decode(asBuffer(bytes));
    const revision = incoming(message.revision, 'revision');
    const keys = message.keys ?? [];
    const generations = (message.generations ?? []).map((generation) => incoming(generation, 'generations'));
    check(recordKey, recordKey === recordKeys.expiry(revision), 'holds another revision');
    check(recordKey, keys.length === generations.length, 'has not one generation for each key');
    return ExpiryGroups.fromDisk(revision, incoming(message.atMs, 'at_ms'), keys, generations);
  });

export const decodeCounters = (recordKey: string, bytes: Uint8Array): Counters =>
  decoding(recordKey, () => {
    const message = messages.log.StateRecord.decode(asBuffer(bytes));
    const counters: Counters = {
      revision: incoming(message.revision, 'revision'),
      timeMs: incoming(message.timeMs, 'time_ms'),
      epoch: incoming(message.epoch, 'epoch'),
      forgottenUpTo: incoming(message.tombstonesFloor, 'tombstones_floor'),
      generationFloor: incoming(message.generationFloor, 'generation_floor'),
      lastMember: incoming(message.lastMember, 'last_member'),
      members: (message.members ?? []).map((member) => incoming(member, 'members')),
    };
    check(recordKey, counters.epoch > 0, 'has no epoch');
    check(recordKey, counters.forgottenUpTo <= counters.revision, 'has forgotten what has not happened');
    let least = 1;
    for (const member of counters.members) {
      check(recordKey, member >= least && member <= counters.lastMember, 'has members out of order');
      least = member + 1;
    }
    return counters;
  });

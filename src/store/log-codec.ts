/** Log entries and commands as log.proto's messages and back. What is decoded holds nothing of the bytes it came from. */
import {
  encodeWith,
  FuturestoreError,
  incoming,
  messages,
  outgoing,
  partsWithoutBound,
  operationFromMessage,
  operationToMessage,
  readOperation,
  StrictReader,
  writeOperation,
  type Operation,
  type PlainWriter,
} from '../protocol/index.ts';
import {
  accessCommandFromMessage,
  accessCommandToMessage,
  subjectFromMessage,
  subjectToMessage,
} from './access-codec.ts';
import { assert, isGiven, unreachable } from './assert.ts';
import type {
  AskedBy,
  Command,
  CommandBody,
  DueFuture,
  DueSession,
  LogEntry,
  Origin,
  SessionId,
} from './types.ts';

type CommandMessage = messages.log.Command.$Properties;
type CommandBodyMessage = Pick<
  messages.log.Command.$Properties,
  | 'write'
  | 'sessionOpen'
  | 'sessionClose'
  | 'sessionDetach'
  | 'serverStarted'
  | 'serverLost'
  | 'expire'
  | 'memberAdd'
  | 'memberPromote'
  | 'memberRemove'
  | 'aclApply'
  | 'aclRevoke'
  | 'aclRestore'
  | 'ticketKeys'
>;

/** LogEntry.commands: field 2, length-delimited. */
const commandsTag = (2 << 3) | 2;
/** LogEntry.time_ms: field 1, a varint. */
const timeTag = 1 << 3;
/** Command.write: field 4, length-delimited. */
const writeTag = (4 << 3) | 2;
/** SessionWrite's session_id, principal and operations: fields 1, 2 and 5, length-delimited. */
const sessionTag = (1 << 3) | 2;
const principalTag = (2 << 3) | 2;
const operationsTag = (5 << 3) | 2;
const idBytes = 16;
const noBytes = new Uint8Array(0);

export const sessionToBytes = (session: SessionId): Uint8Array => {
  checkSession(session);
  return Buffer.from(session, 'hex');
};

const hexDigits = /^[0-9a-fA-F]+$/;
const checkSession = (session: SessionId): void => {
  assert(session.length === 2 * idBytes && hexDigits.test(session), 'a session id is not 32 hex digits');
};

export const sessionFromBytes = (bytes: Uint8Array | null | undefined, field: string): SessionId => {
  if (bytes?.length !== idBytes) {
    throw new FuturestoreError(
      'PROTOCOL_ERROR',
      `${field} has ${bytes?.length ?? 0} bytes: it must have ${idBytes}`,
    );
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
};

/** A view, because protobufjs reads texts and numbers from a Buffer several times as fast as from a Uint8Array. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const encodeCommand = (command: Command): Uint8Array => encodeWith(writeCommand, command);

/** Throws a FuturestoreError with code PROTOCOL_ERROR for what is no command of this version. */
export const decodeCommand = (bytes: Uint8Array): Command =>
  decoded(bytes, (reader) => readCommand(reader, reader.len));

/** From commands as `encodeCommand` gave them, here or on another server. */
export const encodeLogEntryFromCommands = (
  timeMs: number,
  encodedCommands: readonly Uint8Array[],
): Uint8Array => encodeWith(writeEntry, { timeMs, encodedCommands });

const writeEntry = (
  writer: PlainWriter,
  { timeMs, encodedCommands }: { readonly timeMs: number; readonly encodedCommands: readonly Uint8Array[] },
): void => {
  messages.log.LogEntry.encode({ timeMs: outgoing(timeMs) }, writer);
  for (const command of encodedCommands) writer.uint32(commandsTag).bytes(command);
};

export const encodeLogEntry = (entry: LogEntry): Uint8Array =>
  encodeLogEntryFromCommands(entry.timeMs, entry.commands.map(encodeCommand));

/** Throws a FuturestoreError with code PROTOCOL_ERROR for what is no entry of this version. */
export const decodeLogEntry = (bytes: Uint8Array): LogEntry =>
  decoded(bytes, (reader) => {
    let timeMs = 0;
    const commands: Command[] = [];
    while (reader.pos < reader.len) {
      const tag = reader.tag();
      if (tag === commandsTag) commands.push(readCommand(reader, reader.size()));
      else if (tag === timeTag) timeMs = incoming(reader.uint64(), 'time_ms');
      else reader.skipType(tag & 7, 0, tag >>> 3);
    }
    return { timeMs, commands };
  });

const decoded = <T>(bytes: Uint8Array, decode: (reader: StrictReader) => T): T => {
  try {
    return decode(new StrictReader(asBuffer(bytes), partsWithoutBound));
  } catch (cause) {
    if (cause instanceof FuturestoreError) throw cause;
    throw new FuturestoreError(
      'PROTOCOL_ERROR',
      'The bytes of a log entry or command are not what protobuf allows',
      {
        cause,
      },
    );
  }
};

// ---- writes: nearly all commands, so by hand; the bytes are those of the generated code ----

const writeCommand = (writer: PlainWriter, command: Command): void => {
  if (command.kind !== 'write') {
    messages.log.Command.encode(commandToMessage(command), writer);
    return;
  }
  const { origin, session, principal, sequence, answeredBelow, operations } = command;
  writeNumber(writer, 1, origin.member);
  writeNumber(writer, 2, origin.run);
  writeNumber(writer, 3, origin.request);
  writer.uint32(writeTag).fork();
  checkSession(session);
  writer.uint32(sessionTag);
  writer.hex(session);
  if (principal !== '') writer.uint32(principalTag).string(principal);
  writeNumber(writer, 3, sequence);
  writeNumber(writer, 4, answeredBelow);
  for (const operation of operations) {
    writer.uint32(operationsTag).fork();
    writeOperation(writer, operation);
    writer.ldelim();
  }
  writer.ldelim();
};

/** A field without presence: 0 is not written. */
const writeNumber = (writer: PlainWriter, field: number, value: number): void => {
  if (value !== 0) writer.uint32(field << 3).uint64(outgoing(value));
};

/** log.Command of `length` bytes. */
const readCommand = (reader: StrictReader, length: number): Command => {
  const { pos, partsLeft } = reader;
  const write = readWriteCommand(reader, reader.pos + length);
  if (write !== undefined) return write;
  reader.rewind(pos, partsLeft);
  return commandFromMessage(messages.log.Command.decode(reader.reader, length));
};

/** undefined: it is another command, broken, or not as our own encoder writes it. */
const readWriteCommand = (reader: StrictReader, end: number): Command | undefined => {
  if (end > reader.len) return undefined;
  const origin = { member: 0, run: 0, request: 0 };
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag <= before) return undefined;
    before = tag;
    if (tag === 1 << 3) origin.member = reader.uint64();
    else if (tag === 2 << 3) origin.run = reader.uint64();
    else if (tag === 3 << 3) origin.request = reader.uint64();
    else if (tag === writeTag) {
      const isWhole = reader.size() === end - reader.pos;
      const isSafe = origin.member + origin.run + origin.request < Number.POSITIVE_INFINITY;
      return isWhole && isSafe ? readSessionWrite(reader, end, origin) : undefined;
    } else return undefined;
  }
  return undefined;
};

/** One text for the many writes of an agent on end. */
let lastPrincipal = '';

const readSessionWrite = (reader: StrictReader, end: number, origin: Origin): Command | undefined => {
  let session = '';
  let principal = '';
  let sequence = 0;
  let answeredBelow = 0;
  const operations: Operation[] = [];
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag < before || (tag === before && tag !== operationsTag)) return undefined;
    before = tag;
    if (tag === sessionTag) session = reader.hex();
    else if (tag === principalTag) lastPrincipal = principal = reader.textOr(lastPrincipal);
    else if (tag === 3 << 3) sequence = reader.uint64();
    else if (tag === 4 << 3) answeredBelow = reader.uint64();
    else if (tag === operationsTag) {
      const length = reader.size();
      if (reader.pos + length > end) return undefined;
      operations.push(readOperation(reader, length));
    } else return undefined;
  }
  const isSafe = sequence + answeredBelow < Number.POSITIVE_INFINITY;
  if (reader.pos !== end || !isSafe || session.length !== 2 * idBytes) return undefined;
  return { origin, kind: 'write', session, principal, sequence, answeredBelow, operations };
};

// ---- all others ----

const commandToMessage = (command: Command): CommandMessage => ({
  originMember: outgoing(command.origin.member),
  originRun: outgoing(command.origin.run),
  originRequest: outgoing(command.origin.request),
  ...bodyToMessage(command),
});

const bodyToMessage = (command: CommandBody): CommandBodyMessage => {
  switch (command.kind) {
    case 'write':
      return {
        write: {
          sessionId: sessionToBytes(command.session),
          principal: command.principal,
          sequence: outgoing(command.sequence),
          answeredBelow: outgoing(command.answeredBelow),
          operations: command.operations.map(operationToMessage),
        },
      };
    case 'session_open':
      return {
        sessionOpen: {
          sessionId: sessionToBytes(command.session),
          principal: command.principal,
          graceMs: outgoing(command.graceMs),
          resume: command.resume,
          connection: outgoing(command.connection),
          ...(command.askedAtMs !== undefined && { askedAtMs: outgoing(command.askedAtMs) }),
          ...(command.subject !== undefined && { subject: subjectToMessage(command.subject) }),
        },
      };
    case 'session_close':
      return { sessionClose: { sessionId: sessionToBytes(command.session), principal: command.principal } };
    case 'session_detach':
      return {
        sessionDetach: {
          sessionId: sessionToBytes(command.session),
          connection: outgoing(command.connection),
        },
      };
    case 'server_started':
      return {
        serverStarted: {
          member: outgoing(command.member),
          run: outgoing(command.run),
          diskId: command.diskId,
        },
      };
    case 'server_lost':
      return { serverLost: { member: outgoing(command.member), run: outgoing(command.run) } };
    case 'member_add':
      return {
        memberAdd: {
          least: outgoing(command.least),
          name: command.name,
          peersAddress: command.peersAddress,
          agentsUrl: command.agentsUrl,
          replaces: outgoing(command.replaces),
          ...byToMessage(command),
        },
      };
    case 'member_promote':
      return { memberPromote: { member: outgoing(command.member), ...byToMessage(command) } };
    case 'member_remove':
      return { memberRemove: { member: outgoing(command.member), ...byToMessage(command) } };
    case 'acl_apply':
    case 'acl_revoke':
    case 'acl_restore':
      return accessCommandToMessage(command);
    case 'ticket_keys':
      return { ticketKeys: { number: outgoing(command.number), keys: command.keys } };
    case 'expire':
      return {
        expire: {
          futures: command.futures.map(({ key, generation, atMs }) => ({
            key,
            generation: outgoing(generation),
            atMs: outgoing(atMs),
          })),
          sessions: command.sessions.map(({ session, atMs }) => ({
            sessionId: sessionToBytes(session),
            atMs: outgoing(atMs),
          })),
        },
      };
    default:
      return unreachable(command, 'a command');
  }
};

const commandFromMessage = (message: CommandMessage): Command => ({
  origin: {
    member: incoming(message.originMember, 'origin_member'),
    run: incoming(message.originRun, 'origin_run'),
    request: incoming(message.originRequest, 'origin_request'),
  },
  ...bodyFromMessage(message),
});

const bodyFromMessage = (message: CommandBodyMessage): CommandBody => {
  const { write, sessionOpen, sessionClose, sessionDetach, serverStarted, serverLost, expire } = message;
  if (isGiven(write)) {
    return {
      kind: 'write',
      session: sessionFromBytes(write.sessionId, 'write.session_id'),
      principal: write.principal ?? '',
      sequence: incoming(write.sequence, 'write.sequence'),
      answeredBelow: incoming(write.answeredBelow, 'write.answered_below'),
      operations: (write.operations ?? []).map(operationFromMessage),
    };
  }
  if (isGiven(sessionOpen)) {
    return {
      kind: 'session_open',
      session: sessionFromBytes(sessionOpen.sessionId, 'session_open.session_id'),
      principal: sessionOpen.principal ?? '',
      graceMs: incoming(sessionOpen.graceMs, 'session_open.grace_ms'),
      resume: sessionOpen.resume ?? false,
      connection: incoming(sessionOpen.connection, 'session_open.connection'),
      ...(isGiven(sessionOpen.askedAtMs) && {
        askedAtMs: incoming(sessionOpen.askedAtMs, 'session_open.asked_at_ms'),
      }),
      ...(isGiven(sessionOpen.subject) && {
        subject: subjectFromMessage(sessionOpen.subject, 'session_open.subject'),
      }),
    };
  }
  if (isGiven(sessionClose)) {
    const session = sessionFromBytes(sessionClose.sessionId, 'session_close.session_id');
    return { kind: 'session_close', session, principal: sessionClose.principal ?? '' };
  }
  if (isGiven(sessionDetach)) {
    return {
      kind: 'session_detach',
      session: sessionFromBytes(sessionDetach.sessionId, 'session_detach.session_id'),
      connection: incoming(sessionDetach.connection, 'session_detach.connection'),
    };
  }
  if (isGiven(serverStarted)) {
    return {
      kind: 'server_started',
      member: incoming(serverStarted.member, 'server_started.member'),
      run: incoming(serverStarted.run, 'server_started.run'),
      diskId: new Uint8Array(serverStarted.diskId ?? noBytes),
    };
  }
  if (isGiven(serverLost)) {
    const member = incoming(serverLost.member, 'server_lost.member');
    return { kind: 'server_lost', member, run: incoming(serverLost.run, 'server_lost.run') };
  }
  if (isGiven(expire)) {
    return {
      kind: 'expire',
      futures: (expire.futures ?? []).map(dueFutureFromMessage),
      sessions: (expire.sessions ?? []).map(dueSessionFromMessage),
    };
  }
  return accessCommandFromMessage(message) ?? memberCommandFromMessage(message);
};

const byToMessage = ({ by, askedBy }: AskedBy) => ({
  ...(by !== undefined && { by: subjectToMessage(by) }),
  ...(askedBy !== undefined && { askedBy }),
});

const byFromMessage = (
  { by, askedBy = '' }: Pick<messages.log.MemberRemove.$Properties, 'by' | 'askedBy'>,
  command: string,
): AskedBy => ({
  ...(isGiven(by) && { by: subjectFromMessage(by, `${command}.by`) }),
  ...(askedBy !== '' && { askedBy }),
});

const memberCommandFromMessage = ({
  memberAdd,
  memberPromote,
  memberRemove,
  ticketKeys,
}: CommandBodyMessage): CommandBody => {
  if (isGiven(ticketKeys)) {
    const keys = new Uint8Array(ticketKeys.keys ?? noBytes);
    return { kind: 'ticket_keys', number: incoming(ticketKeys.number, 'ticket_keys.number'), keys };
  }
  if (isGiven(memberAdd)) {
    return {
      kind: 'member_add',
      least: incoming(memberAdd.least, 'member_add.least'),
      name: memberAdd.name ?? '',
      peersAddress: memberAdd.peersAddress ?? '',
      agentsUrl: memberAdd.agentsUrl ?? '',
      replaces: incoming(memberAdd.replaces, 'member_add.replaces'),
      ...byFromMessage(memberAdd, 'member_add'),
    };
  }
  if (isGiven(memberPromote)) {
    const member = incoming(memberPromote.member, 'member_promote.member');
    return { kind: 'member_promote', member, ...byFromMessage(memberPromote, 'member_promote') };
  }
  if (isGiven(memberRemove)) {
    const member = incoming(memberRemove.member, 'member_remove.member');
    return { kind: 'member_remove', member, ...byFromMessage(memberRemove, 'member_remove') };
  }
  throw new FuturestoreError('PROTOCOL_ERROR', 'A command has no body that this version knows');
};

const dueFutureFromMessage = (message: messages.log.ExpireFuture.$Properties): DueFuture => ({
  key: message.key ?? '',
  generation: incoming(message.generation, 'expire.generation'),
  atMs: incoming(message.atMs, 'expire.at_ms'),
});

const dueSessionFromMessage = (message: messages.log.ExpireSession.$Properties): DueSession => ({
  session: sessionFromBytes(message.sessionId, 'expire.session_id'),
  atMs: incoming(message.atMs, 'expire.at_ms'),
});

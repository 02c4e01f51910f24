/** Log entries and commands as log.proto's messages and back. What is decoded holds nothing of the bytes it came from. */
import {
  FuturestoreError,
  incoming,
  messages,
  operationFromMessage,
  operationToMessage,
  outgoing,
} from '../protocol/index.ts';
import {
  accessCommandFromMessage,
  accessCommandToMessage,
  subjectFromMessage,
  subjectToMessage,
} from './access-codec.ts';
import { assert, isGiven, unreachable } from './assert.ts';
import type { Command, CommandBody, DueFuture, DueSession, LogEntry, SessionId, Subject } from './types.ts';

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
const idBytes = 16;
const noBytes = new Uint8Array(0);

export const sessionToBytes = (session: SessionId): Uint8Array => {
  const bytes = Buffer.from(session, 'hex');
  assert(bytes.length === idBytes && session.length === 2 * idBytes, 'a session id is not 32 hex digits');
  return bytes;
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

export const encodeCommand = (command: Command): Uint8Array =>
  messages.log.Command.encode(commandToMessage(command)).finish();

/** Throws a FuturestoreError with code PROTOCOL_ERROR for what is no command of this version. */
export const decodeCommand = (bytes: Uint8Array): Command =>
  commandFromMessage(decoded(() => messages.log.Command.decode(asBuffer(bytes))));

/** From commands as `encodeCommand` gave them, here or on another server. */
export const encodeLogEntryFromCommands = (
  timeMs: number,
  encodedCommands: readonly Uint8Array[],
): Uint8Array => {
  const writer = messages.log.LogEntry.encode({ timeMs: outgoing(timeMs) });
  for (const command of encodedCommands) writer.uint32(commandsTag).bytes(command);
  return writer.finish();
};

export const encodeLogEntry = (entry: LogEntry): Uint8Array =>
  encodeLogEntryFromCommands(entry.timeMs, entry.commands.map(encodeCommand));

/** Throws a FuturestoreError with code PROTOCOL_ERROR for what is no entry of this version. */
export const decodeLogEntry = (bytes: Uint8Array): LogEntry => {
  const message = decoded(() => messages.log.LogEntry.decode(asBuffer(bytes)));
  return {
    timeMs: incoming(message.timeMs, 'time_ms'),
    commands: (message.commands ?? []).map(commandFromMessage),
  };
};

const decoded = <T>(decode: () => T): T => {
  try {
    return decode();
  } catch (cause) {
    throw new FuturestoreError(
      'PROTOCOL_ERROR',
      'The bytes of a log entry or command are not what protobuf allows',
      {
        cause,
      },
    );
  }
};

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

const byToMessage = ({ by }: { readonly by?: Subject }) =>
  by === undefined ? {} : { by: subjectToMessage(by) };

const byFromMessage = (
  { by }: Pick<messages.log.MemberRemove.$Properties, 'by'>,
  command: string,
): { readonly by?: Subject } => (isGiven(by) ? { by: subjectFromMessage(by, `${command}.by`) } : {});

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

/** What each command of the log does to the state. */
import type { Change } from '../protocol/index.ts';
import { limits } from '../protocol/index.ts';
import { unreachable } from './assert.ts';
import type { ExpiryGroup } from './expiry-groups.ts';
import { instantOf } from './future-table.ts';
import { done, failed } from './results.ts';
import { changeAccess, changeMembers, loseServer, startServer } from './server-commands.ts';
import { closeSession, detachSession, endSession, openSession } from './session-commands.ts';
import type { Tables } from './tables.ts';
import { expired } from './transitions.ts';
import type { Command, CommandOf, CommandResult } from './types.ts';
import { QuotaCheck } from './usage.ts';
import { write } from './writes.ts';

/** Not remembered: its server describes the session as soon as it sees that the cluster decides over access. */
const notDescribed: CommandResult = {
  kind: 'failed',
  failure: {
    code: 'UNAVAILABLE',
    message:
      'the cluster has just begun to decide over access, and does not know whose session this is: send it again',
  },
};

/** Its changes are put behind those that are there, all with the next revision. */
export const runCommand = (tables: Tables, command: Command, changes: Change[]): CommandResult => {
  switch (command.kind) {
    case 'write':
      return writeOfSession(tables, command, changes);
    case 'session_open':
      return openSession(tables, command, command.origin, changes);
    case 'session_close':
      return closeSession(tables, command);
    case 'session_detach':
      return detachSession(tables, command, command.origin);
    case 'server_started':
      return startServer(tables, command);
    case 'server_lost':
      return loseServer(tables, command);
    case 'member_add':
    case 'member_promote':
    case 'member_remove':
      return changeMembers(tables, command, command.origin);
    case 'acl_apply':
    case 'acl_revoke':
    case 'acl_restore':
      return changeAccess(tables, command, command.origin);
    case 'ticket_keys':
      tables.ticketKeys.replace(command.number, command.keys, tables.counters.timeMs);
      return done;
    case 'expire':
      return expire(tables, command, changes);
    default:
      return unreachable(command, 'a command');
  }
};

const writeOfSession = (tables: Tables, command: CommandOf<'write'>, changes: Change[]): CommandResult => {
  const { principal, sequence } = command;
  const session = tables.sessions.find(command.session);
  if (session === undefined || session.principal !== principal) {
    return failed('SESSION_EXPIRED', 'the session of this write does not exist: open a new one');
  }
  tables.sessions.forgetAnswers(session, command.answeredBelow);
  if (sequence < session.answeredBelow) {
    return failed(
      'STALE_REQUEST',
      `write ${sequence} is below ${session.answeredBelow}, up to where the client has all answers: give it a new number`,
    );
  }
  const remembered = session.answers?.get(sequence);
  if (remembered !== undefined) return remembered.answer;
  if ((session.answers?.size ?? 0) >= limits.rememberedAnswersMax) {
    return failed(
      'LIMIT_EXCEEDED',
      `the session has ${limits.rememberedAnswersMax} remembered answers: say with answered_below which have arrived`,
    );
  }
  const { revision, timeMs, generationFloor } = tables.counters;
  let quota: QuotaCheck | undefined;
  if (tables.access.active) {
    const { subject } = session;
    if (subject === undefined) return notDescribed;
    const judgement = tables.access.judge(subject, session.judgement);
    session.judgement = judgement;
    const refusal = tables.access.refusal(judgement, command.operations, principal);
    if (refusal !== undefined) {
      const answer = { kind: 'failed', failure: refusal } as const;
      tables.sessions.remember(session, sequence, answer);
      return answer;
    }
    if (judgement.limits !== undefined)
      quota = new QuotaCheck(
        principal,
        judgement.limits,
        tables.futures.usage.of(principal),
        tables.access.strictQuotas,
      );
  }
  // The session's own text: one for all keys that it makes.
  const { strictQuotas } = tables.access;
  const at = {
    nowMs: timeMs,
    revision: revision + 1,
    principal: session.principal,
    session,
    strictQuotas,
  };
  const answer = write(tables.futures, generationFloor, command.operations, at, revision, changes, quota);
  tables.sessions.remember(session, sequence, answer);
  return answer;
};

const expire = (
  tables: Tables,
  { futures, sessions }: CommandOf<'expire'>,
  changes: Change[],
): CommandResult => {
  const { timeMs, revision } = tables.counters;
  let group: ExpiryGroup | undefined;
  for (const { key, generation, atMs } of futures) {
    const record = tables.futures.find(key);
    const present = record?.future;
    if (record === undefined || present === undefined) continue;
    if (present.generation !== generation || instantOf(present) !== atMs || atMs > timeMs) continue;
    const future = expired(present, revision + 1, timeMs);
    const { lastGeneration, createdRevision } = record;
    group ??= tables.futures.expiries.begin(revision + 1, timeMs);
    tables.futures.end(
      record,
      { future, lastGeneration, createdRevision, tied: undefined, payer: undefined },
      group,
    );
    changes.push({ kind: 'future', revision: revision + 1, key, future });
  }
  for (const { session: id, atMs } of sessions) {
    const session = tables.sessions.find(id);
    if (session === undefined || session.member !== 0) continue;
    if (session.expiresAtMs !== atMs || atMs > timeMs) continue;
    endSession(tables, session, changes);
  }
  return done;
};

/** What the log says of sessions: who opens, closes and loses one, and what ends with it. */
import type { Change, Future } from '../protocol/index.ts';
import { assert } from './assert.ts';
import type { KeyRecord } from './future-table.ts';
import { done, failed } from './results.ts';
import type { Session } from './sessions.ts';
import type { Tables } from './tables.ts';
import { expired, producerLost, stateAt } from './transitions.ts';
import type { CommandOf, CommandResult, Origin, Subject } from './types.ts';

/** Above what any entry has, and a power of two: places in the log are ordered as their numbers are. */
const commandsPerEntry = 1024;

export const placeOf = (index: number, position: number): number => index + position / commandsPerEntry;

export const openSession = (
  tables: Tables,
  command: CommandOf<'session_open'>,
  origin: Origin,
  changes: Change[],
): CommandResult => {
  const { principal, graceMs, connection } = command;
  let session = tables.sessions.find(command.session);
  const isNew = session === undefined;
  if (session === undefined && !command.resume) {
    if (tables.sessions.countOf(principal) >= tables.limits.sessionsPerPrincipalMax) {
      return failed(
        'LIMIT_EXCEEDED',
        `${principal} has ${tables.limits.sessionsPerPrincipalMax} sessions: close some, or wait until their grace has passed`,
      );
    }
    if (tables.sessions.size >= tables.limits.sessionsMax) {
      const longest = tables.sessions.longestDetached;
      if (longest === undefined) {
        return failed(
          'LIMIT_EXCEEDED',
          `there are ${tables.limits.sessionsMax} sessions, all in use: close some`,
        );
      }
      endSession(tables, longest, changes);
    }
    session = tables.sessions.create(command.session, principal, graceMs);
  }
  if (session === undefined || session.principal !== principal) {
    return failed('SESSION_EXPIRED', 'the session does not exist: open a new one, with a new id');
  }
  const { member, run } = origin;
  // The same command may come twice, and servers attach again what they had.
  const isOther =
    isNew ||
    (session.lastMember !== 0 &&
      (session.lastMember !== member || session.lastRun !== run || session.lastConnection !== connection));
  if (isOther) tables.connected.push(tables.position);
  const connectedAt = isOther ? placeOf(tables.index, tables.position) : undefined;
  tables.sessions.attach(session, { member, run, connection }, graceMs, connectedAt);
  describeSubject(tables, session, command.subject);
  // Nobody will ever say of a server that has left that it is lost.
  if (tables.members.isGone(origin.member)) detach(tables, session);
  return done;
};

/** Of a session that is not there, or not the principal's, nothing is told. */
export const closeSession = (tables: Tables, command: CommandOf<'session_close'>): CommandResult => {
  const session = tables.sessions.find(command.session);
  if (session === undefined || session.principal !== command.principal) return done;
  if ((session.tied?.size ?? 0) === 0) tables.sessions.remove(session);
  else if (session.member !== 0) detach(tables, session);
  return done;
};

export const detachSession = (
  tables: Tables,
  command: CommandOf<'session_detach'>,
  origin: Origin,
): CommandResult => {
  const session = tables.sessions.find(command.session);
  const attachedThere =
    session !== undefined &&
    session.member === origin.member &&
    session.run === origin.run &&
    session.connection === command.connection;
  if (attachedThere && session.member !== 0) detach(tables, session);
  return done;
};

/** Nobody's are told where the cluster does not decide: servers of an earlier version would not remember them. */
export const describeSubject = (tables: Tables, session: Session, subject: Subject | undefined): void => {
  const told = tables.access.active ? subject : undefined;
  if (told !== session.subject) tables.sessions.describe(session, told);
};

/** Its grace begins. */
export const detach = (tables: Tables, session: Session): void => {
  tables.sessions.detach(session, tables.counters.timeMs + session.graceMs);
};

/** With it end the futures that are tied to it and pending. */
export const endSession = (tables: Tables, session: Session, changes: Change[]): void => {
  const { timeMs, revision } = tables.counters;
  // Each takes itself out of the set, which an iteration of a Set allows.
  for (const record of session.tied ?? []) {
    const { future } = record;
    assert(future?.state === 'pending', 'a future that is not pending is tied to a session');
    // Had its deadline been applied in time, that would have been the reason.
    const late = stateAt(future, timeMs) !== 'pending';
    changeAlone(tables, record, (late ? expired : producerLost)(future, revision + 1, timeMs), changes);
  }
  tables.sessions.remove(session);
};

/** A change that no operation made: the generation stays. */
const changeAlone = (tables: Tables, record: KeyRecord, future: Future, changes: Change[]): void => {
  const { key, lastGeneration, createdRevision } = record;
  const { revision } = future;
  const slot = { future, lastGeneration, createdRevision, tied: undefined, payer: undefined };
  tables.futures.put(key, record, slot, revision, tables.counters.timeMs);
  changes.push({ kind: 'future', revision, key, future });
};

/**
 * The idempotency sessions: who each belongs to, where it is attached, which answers it remembers, and which pending
 * futures end with it. A detached session ends when its grace has passed, by an applied command and never by a clock.
 */
import { assert } from './assert.ts';
import type { KeyRecord } from './future-table.ts';
import { OrderedKeys } from './ordered-keys.ts';
import { RememberedAnswers, type Answer } from './remembered-answers.ts';
import { ShardedMap } from './sharded-map.ts';
import type { Timer, TimerWheel } from './timer-wheel.ts';
import type { Judgement } from './access.ts';
import type { SessionId, Subject } from './types.ts';

/** A principal with more attached sessions has many connections for sure. */
const rivalsMax = 64;

/** `connection`: unique in one run of the member. */
export interface Attachment {
  readonly member: number;
  readonly run: number;
  readonly connection: number;
}

/** Only the table changes it (and the key table what is tied to it). */
export class Session {
  readonly id: SessionId;
  readonly principal: string;
  graceMs: number;
  /** 0: detached. */
  member = 0;
  /** Of the member it is attached to. */
  run = 0;
  connection = 0;
  /**
   * Where in the log its present or last connection was made; 0: before what this server knows. Of this server's memory
   * alone: no part of the state.
   */
  connectedAt = 0;
  /** What it was attached to last, likewise; 0: not known. A server attaches again whom it never lost. */
  lastMember = 0;
  lastRun = 0;
  lastConnection = 0;
  /** Detached only. */
  expiresAtMs = 0;
  answeredBelow = 0;
  answers: RememberedAnswers | undefined = undefined;
  /** Who it belongs to, where the cluster decides over access; undefined: has not been told since. */
  subject: Subject | undefined = undefined;
  /** What was found of the subject last; see AccessTable. */
  judgement: Judgement | undefined = undefined;
  /** Pending futures that are rejected when it ends. */
  tied: Set<KeyRecord> | undefined = undefined;
  timer: Timer<KeyRecord | Session> | undefined = undefined;
  dirty = false;

  constructor(id: SessionId, principal: string, graceMs: number) {
    this.id = id;
    this.principal = principal;
    this.graceMs = graceMs;
  }
}

/** 16 digits hold every safe integer, so that texts are ordered as their numbers are. */
const detachedKey = (session: Session): string =>
  `${String(session.expiresAtMs - session.graceMs).padStart(16, '0')}/${session.id}`;

export class SessionTable {
  readonly #sessions = new ShardedMap<Session>();
  /** By principal. */
  readonly #counts = new Map<string, number>();
  readonly #attached = new Map<number, Set<Session>>();
  /** By principal, those that are attached; nearly all have one. */
  readonly #attachedOf = new Map<string, Session | Set<Session>>();
  /** By the instant of their detachment, then by id: who is evicted first must not depend on who came first in memory. */
  readonly #detached = new OrderedKeys();
  readonly #wheel: TimerWheel<KeyRecord | Session>;
  #dirty: Session[] = [];

  constructor(wheel: TimerWheel<KeyRecord | Session>) {
    this.#wheel = wheel;
  }

  get size(): number {
    return this.#sessions.size;
  }

  find(id: SessionId): Session | undefined {
    return this.#sessions.get(id);
  }

  all(): Generator<Session, void, undefined> {
    return this.#sessions.values();
  }

  attachedTo(member: number): readonly Session[] {
    return [...(this.#attached.get(member) ?? [])];
  }

  /**
   * Of the principal's sessions that are attached to other members than this one: the one whose connection was made last,
   * if that was later. Undefined also where a principal has so many that it cannot be one that may have one.
   */
  newerElsewhere(session: Session): Session | undefined {
    const others = this.#attachedOf.get(session.principal);
    if (!(others instanceof Set) || others.size > rivalsMax) return undefined;
    let newest: Session | undefined;
    for (const other of others) {
      if (other.member === session.member) continue;
      if (other.connectedAt > (newest ?? session).connectedAt) newest = other;
    }
    return newest;
  }

  /** How many sessions the principal has. */
  countOf(principal: string): number {
    return this.#counts.get(principal) ?? 0;
  }

  get longestDetached(): Session | undefined {
    const id = this.#detached.first?.split('/')[1];
    return id === undefined ? undefined : this.#sessions.get(id);
  }

  /** Gives it neither attached nor detached: the caller decides at once. */
  create(id: SessionId, principal: string, graceMs: number): Session {
    assert(!this.#sessions.has(id), 'a session is created twice');
    const session = new Session(id, principal, graceMs);
    this.#sessions.set(id, session);
    this.#counts.set(principal, this.countOf(principal) + 1);
    this.touch(session);
    return session;
  }

  /** `connectedAt`: where in the log that stands, where it is another connection than before; undefined: that is not known. */
  attach(
    session: Session,
    { member, run, connection }: Attachment,
    graceMs: number,
    connectedAt?: number,
  ): void {
    assert(member > 0, 'a session is attached to no member');
    this.#leave(session);
    if (connectedAt !== undefined) session.connectedAt = connectedAt;
    session.lastMember = member;
    session.lastRun = run;
    session.lastConnection = connection;
    this.#enter(session);
    session.graceMs = graceMs;
    session.member = member;
    session.run = run;
    session.connection = connection;
    let attached = this.#attached.get(member);
    if (attached === undefined) this.#attached.set(member, (attached = new Set()));
    attached.add(session);
    this.touch(session);
  }

  describe(session: Session, subject: Subject | undefined): void {
    session.subject = subject;
    session.judgement = undefined;
    this.touch(session);
  }

  /** Its grace begins. */
  detach(session: Session, expiresAtMs: number): void {
    this.#leave(session);
    session.expiresAtMs = expiresAtMs;
    this.#detached.add(detachedKey(session));
    session.timer = this.#wheel.add(expiresAtMs, session);
    this.touch(session);
  }

  /** The caller has seen to what was tied to it. */
  remove(session: Session): void {
    assert((session.tied?.size ?? 0) === 0, 'a session is removed with pending futures tied to it');
    this.#leave(session);
    this.#sessions.delete(session.id);
    const left = this.countOf(session.principal) - 1;
    if (left > 0) this.#counts.set(session.principal, left);
    else this.#counts.delete(session.principal);
    this.touch(session);
  }

  /** The client has the answers of all sequences below `below`. */
  forgetAnswers(session: Session, below: number): void {
    if (below <= session.answeredBelow) return;
    session.answeredBelow = below;
    this.touch(session);
    session.answers?.forgetBelow(below);
  }

  remember(session: Session, sequence: number, answer: Answer): void {
    assert(sequence >= session.answeredBelow, 'an answer is remembered that the client has');
    (session.answers ??= new RememberedAnswers()).set({ sequence, answer, encoded: undefined });
    this.touch(session);
  }

  touch(session: Session): void {
    if (session.dirty) return;
    session.dirty = true;
    this.#dirty.push(session);
  }

  /** Visits every session that changed or ended since the last call, once; undefined: it has ended. */
  takeDirty(visit: (id: SessionId, session: Session | undefined) => void): void {
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const session of dirty) {
      session.dirty = false;
      const present = this.#sessions.get(session.id);
      // Ended and opened anew since: the new one is dirty itself.
      if (present !== undefined && present !== session) continue;
      visit(session.id, present);
    }
  }

  #enter(session: Session): void {
    const others = this.#attachedOf.get(session.principal);
    if (others === undefined) this.#attachedOf.set(session.principal, session);
    else if (others instanceof Set) others.add(session);
    else this.#attachedOf.set(session.principal, new Set([others, session]));
  }

  #leave(session: Session): void {
    if (session.member !== 0) {
      const others = this.#attachedOf.get(session.principal);
      if (others instanceof Set && others.size > 1) others.delete(session);
      else this.#attachedOf.delete(session.principal);
      this.#attached.get(session.member)?.delete(session);
      session.member = 0;
      session.run = 0;
      session.connection = 0;
    }
    if (session.timer !== undefined) {
      this.#wheel.cancel(session.timer);
      session.timer = undefined;
      this.#detached.delete(detachedKey(session));
      session.expiresAtMs = 0;
    }
  }
}

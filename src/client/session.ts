/**
 * The idempotency session: under which name this client's writes are known to the cluster, so that one sent twice
 * happens once. Its id is made here, opened for the first write, and taken up again on every later connection.
 *
 * No write is sent before the opening is answered. `open_session` without `resume` makes a session that is not there,
 * also one that was there, had a write executed, and was forgotten since; and how long a frame may be on its way, no
 * clock bounds. An opening whose answer was lost is sent again under its id all the same, for to servers another id would
 * be another agent. It may still come, though; so a session that was opened more than once is given up when its client
 * was away for half its grace: it may be forgotten soon, and the late opening must not pass for it.
 */
import { strict as assert } from 'node:assert';
import type { FuturestoreError, RequestBody } from '../protocol/index.ts';

/**
 * An idempotency session that outlives this process, for who keeps a record of its writes: it is opened with the
 * connection, never closed, and a later client takes it up by its id. Its writes have names (`WriteOptions.name`).
 */
export interface LastingSession {
  /** As `opened` told it to an earlier process; absent: a new one is made. */
  readonly id?: string;
  /** The cluster has the session: writes may be named by it. Called again after each reconnect. */
  opened(id: string): void;
  /** It has expired or was refused: what was sent under it and not answered may have happened. Another is opened. */
  lost(id: string, why: FuturestoreError): void;
}

interface Identity {
  /** 32 lower-case hex digits. */
  readonly id: string;
  /** The cluster has said that the session is there. Until then no write was sent under it. */
  readonly confirmed: boolean;
  /** How often it was sent without `resume`. */
  readonly openings: number;
}

export type SessionState =
  /** No write was made yet, or the session was lost. */
  | { readonly kind: 'absent' }
  /** There is one, but not on the present connection. */
  | { readonly kind: 'detached'; readonly identity: Identity; readonly sinceMs: number }
  | { readonly kind: 'opening'; readonly identity: Identity; readonly request: number }
  /** The server could not open it just now; it is tried again. */
  | { readonly kind: 'retrying'; readonly identity: Identity }
  | { readonly kind: 'attached'; readonly identity: Identity };

type OpenSession = Extract<RequestBody, { kind: 'open_session' }>;

export class Session {
  readonly #graceMs: number;
  readonly #newId: () => string;
  #state: SessionState = { kind: 'absent' };
  #nextSequence = 1;

  /** `known`: one that an earlier process opened and that is to be taken up again. */
  constructor(graceMs: number, newId: () => string, known?: string) {
    this.#graceMs = graceMs;
    this.#newId = newId;
    if (known === undefined) return;
    this.#state = { kind: 'detached', identity: { id: known, confirmed: true, openings: 0 }, sinceMs: 0 };
  }

  get state(): SessionState {
    return this.#state;
  }

  /** undefined: there is none. */
  get id(): string | undefined {
    return this.#state.kind === 'absent' ? undefined : this.#state.identity.id;
  }

  /** Whether writes may be sent on the present connection. */
  get mayWrite(): boolean {
    return this.#state.kind === 'attached';
  }

  /** The number the next write will get, if it is sent in this session. */
  get nextSequence(): number {
    return this.#nextSequence;
  }

  /** `chosen`: by who names its writes itself. */
  takeSequence(chosen = this.#nextSequence): number {
    this.#nextSequence = Math.max(this.#nextSequence, chosen + 1);
    return chosen;
  }

  /** Whether a late opening of the session could pass for it, if it is taken up now. */
  isDoubtful(nowMs: number): boolean {
    const state = this.#state;
    if (state.kind !== 'detached') return false;
    const { confirmed, openings } = state.identity;
    return confirmed && openings > 1 && nowMs - state.sinceMs >= this.#graceMs / 2;
  }

  /** What is to be sent to have the session on this connection; undefined if nothing is. */
  open(request: number, hasWrites: boolean): OpenSession | undefined {
    const state = this.#state;
    switch (state.kind) {
      case 'absent': {
        if (!hasWrites) return undefined;
        this.#nextSequence = 1;
        return this.#begin({ id: this.#newId(), confirmed: false, openings: 0 }, request);
      }
      case 'detached':
      case 'retrying':
        return this.#begin(state.identity, request);
      case 'opening':
      case 'attached':
        return undefined;
      default:
        return state satisfies never;
    }
  }

  #begin(before: Identity, request: number): OpenSession {
    const identity = before.confirmed ? before : { ...before, openings: before.openings + 1 };
    this.#state = { kind: 'opening', identity, request };
    return { kind: 'open_session', session: identity.id, graceMs: this.#graceMs, resume: identity.confirmed };
  }

  opened(): void {
    const state = this.#state;
    assert(state.kind === 'opening', `a session that is ${state.kind} cannot have been opened`);
    this.#state = { kind: 'attached', identity: { ...state.identity, confirmed: true } };
  }

  /** The server could not open it now. */
  postponed(): void {
    const state = this.#state;
    assert(state.kind === 'opening', `a session that is ${state.kind} cannot be postponed`);
    this.#state = { kind: 'retrying', identity: state.identity };
  }

  /** The connection is gone, or another one takes over. */
  detached(nowMs: number): void {
    const state = this.#state;
    if (state.kind === 'absent' || state.kind === 'detached') return;
    this.#state = { kind: 'detached', identity: state.identity, sinceMs: nowMs };
  }

  /** Its name is not used again; the next write opens another one. */
  lost(): void {
    this.#state = { kind: 'absent' };
  }
}

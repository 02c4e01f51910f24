/**
 * The idempotency session: under which name this client's writes are known to the cluster, so that one sent twice
 * happens once. Its id is made here, opened with the first write, and taken up again on every later connection.
 *
 * The one doubtful case is a first `open_session` whose answer never came. It is sent again without `resume`, which
 * makes the session anew if it is not there; so a write that was executed under it could be executed again once the
 * cluster has forgotten the session. It forgets no sooner than the grace after the connection's end, hence after half
 * the grace since the first sending the session is given up instead: the other half covers what clocks and delayed
 * frames may add.
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
  readonly firstSentAtMs: number;
  /** The cluster has said that the session is there. */
  readonly confirmed: boolean;
}

export type SessionState =
  /** No write was made yet, or the session was lost. */
  | { readonly kind: 'absent' }
  /** There is one, but not on the present connection. */
  | { readonly kind: 'detached'; readonly identity: Identity }
  /** `fresh`: its id was never sent before, so writes may follow in the same frame. */
  | {
      readonly kind: 'opening';
      readonly identity: Identity;
      readonly request: number;
      readonly fresh: boolean;
    }
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
    this.#state = { kind: 'detached', identity: { id: known, firstSentAtMs: 0, confirmed: true } };
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
    const state = this.#state;
    return state.kind === 'attached' || (state.kind === 'opening' && state.fresh);
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

  /** Whether the session, never confirmed, has become too old to be opened again under its name. */
  isTooOld(nowMs: number): boolean {
    const state = this.#state;
    if (state.kind !== 'detached' && state.kind !== 'retrying') return false;
    return !state.identity.confirmed && nowMs - state.identity.firstSentAtMs >= this.#graceMs / 2;
  }

  /** What is to be sent to have the session on this connection; undefined if nothing is. */
  open(request: number, hasWrites: boolean, nowMs: number): OpenSession | undefined {
    const state = this.#state;
    switch (state.kind) {
      case 'absent': {
        if (!hasWrites) return undefined;
        const identity = { id: this.#newId(), firstSentAtMs: nowMs, confirmed: false };
        this.#nextSequence = 1;
        this.#state = { kind: 'opening', identity, request, fresh: true };
        return this.#openBody(identity);
      }
      case 'detached':
      case 'retrying':
        assert(!this.isTooOld(nowMs), 'a session that is too old must be lost, not opened');
        this.#state = { kind: 'opening', identity: state.identity, request, fresh: false };
        return this.#openBody(state.identity);
      case 'opening':
      case 'attached':
        return undefined;
      default:
        return state satisfies never;
    }
  }

  #openBody(identity: Identity): OpenSession {
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
  detached(): void {
    const state = this.#state;
    if (state.kind !== 'absent') this.#state = { kind: 'detached', identity: state.identity };
  }

  /** Its name is not used again; the next write opens another one. */
  lost(): void {
    this.#state = { kind: 'absent' };
  }
}

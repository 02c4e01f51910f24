/**
 * The idempotency session: under which name this client's writes are known to the cluster, so that one sent twice
 * happens once. Its id is made here, opened for the first write, and taken up again on every later connection.
 *
 * No write is sent before the opening is answered, and an opening whose answer a broken connection took away is not
 * sent again: the next one has a new id. Otherwise a write could happen twice. `open_session` without `resume` makes a
 * session that is not there, also one that was there, had a write executed, and was forgotten since; and how long a
 * frame may be on its way, no clock bounds.
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
}

export type SessionState =
  /** No write was made yet, or the session was lost. */
  | { readonly kind: 'absent' }
  /** There is one that was confirmed, but not on the present connection. */
  | { readonly kind: 'detached'; readonly identity: Identity }
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
    this.#state = { kind: 'detached', identity: { id: known, confirmed: true } };
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

  /** What is to be sent to have the session on this connection; undefined if nothing is. */
  open(request: number, hasWrites: boolean): OpenSession | undefined {
    const state = this.#state;
    switch (state.kind) {
      case 'absent': {
        if (!hasWrites) return undefined;
        const identity = { id: this.#newId(), confirmed: false };
        this.#nextSequence = 1;
        this.#state = { kind: 'opening', identity, request };
        return this.#openBody(identity);
      }
      case 'detached':
      case 'retrying':
        this.#state = { kind: 'opening', identity: state.identity, request };
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
    if (state.kind === 'absent') return;
    const { identity } = state;
    this.#state = identity.confirmed ? { kind: 'detached', identity } : { kind: 'absent' };
  }

  /** Its name is not used again; the next write opens another one. */
  lost(): void {
    this.#state = { kind: 'absent' };
  }
}

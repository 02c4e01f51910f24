/** The session of one connection: one at a time, from the request that opens it to the one that closes it. */
import type { ErrorCode } from '../protocol/index.ts';
import { firstSessionNumber, flights } from './flights.ts';

/** How a connection stands to sessions, as far as the log has told. */
export type SessionStanding =
  | { readonly kind: 'none' }
  /** It is not known yet whether it has been opened, or taken up. */
  | { readonly kind: 'opening' }
  | { readonly kind: 'opened'; readonly session: string };

export class AgentSession {
  #id: string | undefined;
  /** Counts the sessions that this connection had, so that late answers to one don't end the next. */
  #number = firstSessionNumber;
  #toDetach: string | undefined;
  #isPutOff = false;

  /** Undefined: none, requests that need one are refused. */
  get id(): string | undefined {
    return this.#id;
  }

  /** What its requests are in flight as. */
  get number(): number {
    return this.#number;
  }

  /** Whose loss is to be told when the connection ends, even if its opening was given up here. */
  get toDetach(): string | undefined {
    return this.#toDetach;
  }

  /** One was asked for, and its client was told to ask for it later: what was sent behind it is no mistake. */
  get isPutOff(): boolean {
    return this.#isPutOff;
  }

  putOff(): void {
    this.#isPutOff = true;
  }

  /** Why this one cannot be opened; undefined: it can. */
  refusalToOpen(session: string): string | undefined {
    if (this.#id !== undefined)
      return 'this connection has a session already: close it first (close_session), or connect again';
    if (this.#toDetach !== undefined && this.#toDetach !== session)
      return 'whether the session that was asked for before has been opened is not known: open the same one again, or connect again';
    return undefined;
  }

  /** `isOpening`: an answer to its opening is to come. */
  standing(isOpening: boolean): SessionStanding {
    if (this.#toDetach === undefined) return { kind: 'none' };
    const isInDoubt = isOpening || this.#id === undefined;
    return isInDoubt ? { kind: 'opening' } : { kind: 'opened', session: this.#toDetach };
  }

  /** It has been asked for. */
  open(session: string): void {
    this.#isPutOff = false;
    this.#id = session;
    this.#toDetach = session;
    this.#number += 1;
  }

  /** The server says so, to a request that was in flight as `flight`. */
  closed(flight: number): void {
    if (flight === this.#number) this.#forget();
  }

  /**
   * A request that was in flight as `flight` has failed: what that says of the session. `isOpening`: the answer to its
   * opening is to come and decides; a write that overtook it ends nothing.
   */
  failed(flight: number, code: ErrorCode, isOpening: boolean): void {
    const ofSession = flight === this.#number && !isOpening;
    if (code === 'SESSION_EXPIRED' && (ofSession || flight === flights.opening)) {
      this.#forget();
    } else if (flight === flights.opening) {
      // It may have been opened all the same: its end is still told, and the client may ask again.
      this.#id = undefined;
    }
  }

  #forget(): void {
    this.#id = undefined;
    this.#toDetach = undefined;
  }
}

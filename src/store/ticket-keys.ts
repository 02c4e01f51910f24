/**
 * With what all servers seal the TLS sessions of agents, so that one can be resumed at any of them. Secret: whoever has
 * them can take up a session that was sealed with them.
 */

export interface TicketKeys {
  /** 1, 2, 3, … */
  readonly number: number;
  /** 48 random bytes. */
  readonly keys: Uint8Array;
  /** Cluster time when they came. */
  readonly madeAtMs: number;
}

export const ticketKeyBytes = 48;

export class TicketKeyTable {
  #current: TicketKeys | undefined;
  #dirty = false;

  get current(): TicketKeys | undefined {
    return this.#current;
  }

  /** Ignored unless they follow the present ones: two leaders may have wished for new ones. */
  replace(number: number, keys: Uint8Array, nowMs: number): void {
    if (number !== (this.#current?.number ?? 0) + 1 || keys.length !== ticketKeyBytes) return;
    this.#current = { number, keys, madeAtMs: nowMs };
    this.#dirty = true;
  }

  /** undefined: there is one already. */
  load(loaded: TicketKeys): TicketKeys | undefined {
    if (this.#current !== undefined) return undefined;
    this.#current = loaded;
    return loaded;
  }

  clear(): void {
    this.#dirty = this.#current !== undefined;
    this.#current = undefined;
  }

  takeDirty(take: (current: TicketKeys | undefined) => void): void {
    if (this.#dirty) take(this.#current);
    this.#dirty = false;
  }
}

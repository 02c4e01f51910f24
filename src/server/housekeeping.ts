/**
 * What a leader does of its own accord: it proposes the expiry of what is due, tells of servers that are gone so that
 * the sessions of their agents are not kept for ever, and changes the keys with which TLS sessions are sealed.
 */
import { ticketKeyBytes } from '../store/index.ts';
import type { Store, TicketKeys } from '../store/index.ts';
import type { Commands } from './commands.ts';
import { ticketKeysVersionLeast } from './known-versions.ts';

/** Names in one expiry: applying them takes a few milliseconds. With half as many, a hundred thousand at once take an eighth longer. */
const dueMax = 500;
/** Expiries in the log that are not applied yet; the rest of what is due waits for them. */
const expiriesUnderWayMax = 2;

/**
 * How long keys for TLS session tickets are in use. When they change, agents that reconnect do one full handshake (1.3 ms
 * of the server's time more); a key that leaks is worth no more than this.
 */
const ticketKeysMs = 12 * 3600 * 1000;

export interface HousekeepingOptions {
  readonly commands: Commands;
  /** The other members as of now. */
  readonly others: () => readonly number[];
  /** Silence after which a server counts as gone. */
  readonly lostAfterMs: number;
  /** Of the peer protocol, as agreed with the member; undefined: there is no link. */
  readonly versionOf: (member: number) => number | undefined;
  /** For secrets. */
  readonly randomBytes: (count: number) => Uint8Array;
}

export class Housekeeping {
  readonly #options: HousekeepingOptions;
  readonly #expiriesUnderWay = new Set<number>();
  /** The command that replaces the keys for tickets. */
  #ticketKeysUnderWay: number | undefined;
  readonly #heardMs = new Map<number, number>();
  /** Those whose loss has been proposed in this leadership, until they are heard from again. */
  readonly #lost = new Set<number>();

  constructor(options: HousekeepingOptions) {
    this.#options = options;
  }

  heard(member: number, nowMs: number): void {
    this.#heardMs.set(member, nowMs);
    this.#lost.delete(member);
  }

  /** This server leads from now on: nobody is known to be gone, and everything due is proposed anew. */
  lead(store: Store, nowMs: number): void {
    store.resetDue();
    this.#expiriesUnderWay.clear();
    this.#ticketKeysUnderWay = undefined;
    this.#lost.clear();
    this.#heardMs.clear();
    for (const member of this.#options.others()) this.#heardMs.set(member, nowMs);
  }

  /** The result of this server's command was applied. */
  applied(number: number): void {
    this.#expiriesUnderWay.delete(number);
    if (number === this.#ticketKeysUnderWay) this.#ticketKeysUnderWay = undefined;
  }

  /** Only while all servers are there: one of an older version could not read its log any more. */
  renewTicketKeys(present: TicketKeys | undefined, clusterMs: number): void {
    const { others, versionOf, commands, randomBytes } = this.#options;
    const { number = 0, madeAtMs = -Infinity } = present ?? {};
    if (this.#ticketKeysUnderWay !== undefined || clusterMs - madeAtMs < ticketKeysMs) return;
    if (!others().every((member) => (versionOf(member) ?? 0) >= ticketKeysVersionLeast)) return;
    const body = { kind: 'ticket_keys', number: number + 1, keys: randomBytes(ticketKeyBytes) } as const;
    this.#ticketKeysUnderWay = commands.submit(body).number;
  }

  expire(store: Store, clusterMs: number): void {
    while (this.#expiriesUnderWay.size < expiriesUnderWayMax) {
      const due = store.due(clusterMs, dueMax);
      if (due.futures.length === 0 && due.sessions.length === 0) return;
      const { number } = this.#options.commands.submit({ kind: 'expire', ...due });
      this.#expiriesUnderWay.add(number);
    }
  }

  tellOfLost(store: Store, nowMs: number): void {
    for (const member of this.#options.others()) {
      if (this.#lost.has(member)) continue;
      const heardMs = this.#heardMs.get(member);
      // It has become a member only now.
      if (heardMs === undefined) this.#heardMs.set(member, nowMs);
      if (nowMs - (heardMs ?? nowMs) < this.#options.lostAfterMs) continue;
      const server = store.server(member);
      if (server === undefined) continue;
      this.#lost.add(member);
      this.#options.commands.submit({ kind: 'server_lost', member, run: server.run });
    }
  }
}

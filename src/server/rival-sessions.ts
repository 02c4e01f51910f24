/**
 * Sessions of connections here whose principals have newer ones at other servers. Gateways are told of each such one when
 * the log says it, and close the older connection where its principal may have one. But policies may come to say so only
 * later, and what is inside a snapshot is told nobody. So all sessions here are gone through again and again, a few at each
 * tick, and a gateway is told of what has been so for a while: by then servers have settled which of their own
 * connections stay.
 */
import type { Store } from '../store/index.ts';
import type { Gateways } from './gateways.ts';

export interface RivalSessionsOptions {
  readonly member: number;
  readonly run: number;
  readonly store: () => Store;
  readonly gateways: () => Gateways;
}

/** At each tick: a third of a millisecond. */
const sessionsPerTick = 1000;

/** From the beginning of a round to that of the next: what it looks for is to last for longer anyway. */
const roundMs = 500;

/** It is told when it has been so for as long, and again after each such time: most may have several connections. */
const settledAfterMs = 2000;
const tellAgainAfterMs = 30_000;

interface Rivalry {
  readonly newer: string;
  readonly sinceMs: number;
  toldAtMs: number | undefined;
}

type Sessions = ReturnType<Gateways['sessions']>;

export class RivalSessions {
  readonly #options: RivalSessionsOptions;
  /** The round that is under way; undefined: none. */
  #round: Sessions | undefined;
  #nextRoundMs = 0;
  /** By session here: as found in the last round, and in this one. */
  #before = new Map<string, Rivalry>();
  #found = new Map<string, Rivalry>();

  constructor(options: RivalSessionsOptions) {
    this.#options = options;
  }

  /** Policies are others now: what was told before may matter only now. */
  lookAgain(): void {
    for (const rivalry of [...this.#before.values(), ...this.#found.values()]) rivalry.toldAtMs = undefined;
  }

  tick(nowMs: number): void {
    if (this.#round === undefined) {
      if (nowMs < this.#nextRoundMs) return;
      this.#round = this.#options.gateways().sessions();
      this.#nextRoundMs = nowMs + roundMs;
    }
    const round = this.#round;
    for (let left = sessionsPerTick; left > 0; left -= 1) {
      const next = round.next();
      if (next.done === true) {
        this.#round = undefined;
        this.#before = this.#found;
        this.#found = new Map();
        return;
      }
      this.#look(next.value, nowMs);
    }
  }

  #look({ gateway, session, principal, connection }: SessionHere, nowMs: number): void {
    const { member, run, store, gateways } = this.#options;
    if (!store().isAttachedTo(session, { member, run, connection })) return;
    const newer = store().newerElsewhere(session);
    if (newer === undefined) return;
    const before = this.#before.get(session);
    const rivalry = before?.newer === newer ? before : { newer, sinceMs: nowMs, toldAtMs: undefined };
    this.#found.set(session, rivalry);
    if (nowMs - rivalry.sinceMs < settledAfterMs) return;
    if (rivalry.toldAtMs !== undefined && nowMs - rivalry.toldAtMs < tellAgainAfterMs) return;
    rivalry.toldAtMs = nowMs;
    gateways().sessionReplaced(gateway, { session: newer, principal, agoMs: 0, newerThan: session });
  }
}

type SessionHere = Sessions extends Iterator<infer Value> ? Value : never;

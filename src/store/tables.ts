/** All parts of the state, and the bounds that its commands keep. */
import { AccessTable } from './access.ts';
import { FutureTable, type KeyRecord } from './future-table.ts';
import { MemberTable } from './members.ts';
import { ServerTable } from './servers.ts';
import { SessionTable, type Session } from './sessions.ts';
import type { Counters } from './state-codec.ts';
import { TicketKeyTable } from './ticket-keys.ts';
import { TimerWheel } from './timer-wheel.ts';
import type { StoreOptions } from './types.ts';

export type StoreLimits = Required<Omit<StoreOptions, 'clusterId'>>;

export class Tables {
  readonly limits: StoreLimits;
  /** Of futures and of sessions without a connection. */
  readonly wheel = new TimerWheel<KeyRecord | Session>();
  readonly futures = new FutureTable(this.wheel);
  readonly sessions = new SessionTable(this.wheel);
  readonly servers = new ServerTable();
  readonly counters: Counters = {
    revision: 0,
    timeMs: 0,
    epoch: 1,
    forgottenUpTo: 0,
    generationFloor: 0,
    lastMember: 0,
    members: [],
  };
  /** The counters have changed since they were written. */
  countersDirty = false;
  readonly members = new MemberTable(this.counters);
  readonly access = new AccessTable(this.counters);
  readonly ticketKeys = new TicketKeyTable();
  /** Of the entry and the command in it that is being applied. */
  index = 0;
  position = 0;
  /** Of the last entry: at which positions sessions got another connection. */
  connected: number[] = [];

  constructor(limits: StoreLimits) {
    this.limits = limits;
  }
}

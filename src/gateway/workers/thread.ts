/** One gateway in a thread of its own: all that it needs of its server is on the other side of a line. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { compilePolicies } from '../../scopes/index.ts';
import type { PolicyDocument } from '../../scopes/index.ts';
import type {
  GatewayEvent,
  GatewayNotice,
  GatewayPort,
  GatewayRequest,
  ServerStanding,
} from '../../server/index.ts';
import { createGateway } from '../gateway.ts';
import type { LocalGateway } from '../gateway.ts';
import type { Principals } from '../principals.ts';
import { gatewayLimits, systemClock } from '../settings.ts';
import type {
  GatewayClock,
  GatewayLimits,
  GatewayLogger,
  GatewayMetrics,
  GatewayOptions,
} from '../settings.ts';
import { SocketCounts } from '../socket-counts.ts';
import { crossing, perform } from './calls.ts';
import type { CallName, Calls } from './calls.ts';
import { Line } from './line.ts';
import type { ThreadPort } from './line.ts';
import type { Item, Unpacker } from './packing.ts';
import { CancelledRequests } from './cancelled-requests.ts';
import { EventUnpacker, toGateway } from './to-gateway.ts';
import { packNotice, packRequest, toServer } from './to-server.ts';

/** As for any gateway. */
export type ThreadDoor = Pick<
  GatewayOptions,
  'listen' | 'cert' | 'key' | 'origins' | 'proxies' | 'advertise'
> & { readonly revocationListThread?: string };

/** What a thread is made with; it is cloned on its way there. */
export interface GatewayThreadData {
  /** Which one it is, from 0 on. */
  readonly place: number;
  readonly sockets: SharedArrayBuffer;
  readonly standing: ServerStanding;
  readonly policies: PolicyDocument;
  readonly gateway: ThreadDoor;
  readonly limits: Partial<GatewayLimits>;
}

/** What it has counted since the last one, and how its loop is. Once a second, as an answer to the server's tick. */
export interface ThreadReport {
  readonly connections: number;
  readonly refused: Readonly<Record<string, number>>;
  readonly closed: Readonly<Record<string, number>>;
  readonly turnedAway: Readonly<Record<string, number>>;
  /** How late the event loop was; of the last second. */
  readonly delayP99Ms: number;
  readonly delayMaxMs: number;
}

class Counts implements GatewayMetrics {
  #refused: Record<string, number> = {};
  #closed: Record<string, number> = {};
  #turnedAway: Record<string, number> = {};

  refused(code: string): void {
    this.#refused[code] = (this.#refused[code] ?? 0) + 1;
  }

  connectionClosed(code: number): void {
    this.#closed[code] = (this.#closed[code] ?? 0) + 1;
  }

  turnedAway(stage: string): void {
    this.#turnedAway[stage] = (this.#turnedAway[stage] ?? 0) + 1;
  }

  take(): Pick<ThreadReport, 'refused' | 'closed' | 'turnedAway'> {
    const taken = { refused: this.#refused, closed: this.#closed, turnedAway: this.#turnedAway };
    this.#refused = {};
    this.#closed = {};
    this.#turnedAway = {};
    return taken;
  }
}

/** The principals of all threads are counted on the other side. */
class RemotePrincipals implements Principals {
  readonly #line: Line;
  readonly #asked = new Map<number, (admitted: boolean) => void>();
  /** Only of those that have connections elsewhere, too. */
  readonly #shares = new Map<string, number>();
  /** How many are here. */
  readonly #counts = new Map<string, number>();
  #lastTicket = 0;

  constructor(line: Line) {
    this.#line = line;
  }

  enter(principal: string, max: number, told: (admitted: boolean) => void): void {
    this.#lastTicket += 1;
    this.#asked.set(this.#lastTicket, (admitted) => {
      if (admitted) this.#counts.set(principal, (this.#counts.get(principal) ?? 0) + 1);
      told(admitted);
    });
    this.#line.packer.add([toServer.enter, this.#lastTicket, principal, max]);
    this.#line.schedule();
  }

  sole(principal: string, ageMs: number): void {
    this.#line.packer.add([toServer.sole, principal, ageMs]);
    this.#line.schedule();
  }

  leave(principal: string): void {
    const count = this.#counts.get(principal) ?? 0;
    if (count > 1) {
      this.#counts.set(principal, count - 1);
    } else {
      this.#counts.delete(principal);
      this.#shares.delete(principal);
    }
    this.#line.packer.add([toServer.leave, principal]);
    this.#line.schedule();
  }

  shareOf(principal: string): number {
    return this.#shares.get(principal) ?? 1;
  }

  decided(ticket: number, admitted: boolean): void {
    const told = this.#asked.get(ticket);
    if (told === undefined) throw new Error(`nobody asked for admission ${ticket}`);
    this.#asked.delete(ticket);
    told(admitted);
  }

  /** Of one whose last connection here has left meanwhile it is not kept. */
  share(principal: string, share: number): void {
    if (share < 1 && this.#counts.has(principal)) this.#shares.set(principal, share);
    else this.#shares.delete(principal);
  }
}

class GatewayThread implements GatewayPort {
  readonly standing: ServerStanding;
  readonly #line: Line;
  readonly #principals: RemotePrincipals;
  readonly #cancelled = new CancelledRequests();
  readonly #counts = new Counts();
  readonly #gateway: LocalGateway;
  readonly #delay = monitorEventLoopDelay({ resolution: 10 });
  readonly #clock: GatewayClock;
  readonly #leaderlessMs: number;
  /** As the server said it last. */
  #said: ServerStanding;
  #heardAtMs: number;
  #silent = false;
  #stopWatching: (() => void) | undefined;

  constructor(port: ThreadPort, data: GatewayThreadData, logger: GatewayLogger, clock: GatewayClock) {
    this.standing = data.standing;
    this.#said = data.standing;
    this.#clock = clock;
    this.#heardAtMs = clock.nowMs();
    this.#leaderlessMs = { ...gatewayLimits, ...data.limits }.leaderlessMs;
    this.#line = new Line(port);
    this.#principals = new RemotePrincipals(this.#line);
    const { revocationListThread, ...door } = data.gateway;
    this.#gateway = createGateway({
      ...door,
      ...(revocationListThread !== undefined && { revocationListThread: new URL(revocationListThread) }),
      policies: compilePolicies(data.policies),
      port: this,
      limits: data.limits,
      clock,
      logger,
      metrics: this.#counts,
      principals: this.#principals,
      sockets: new SocketCounts(data.sockets, data.place),
    });
  }

  start(): void {
    this.#delay.enable();
    this.#stopWatching = this.#clock.every(1000, () => this.#watch());
    this.#line.listen((unpacker) => this.#received(unpacker));
  }

  submit(requests: readonly GatewayRequest[]): void {
    for (const request of requests) packRequest(this.#line.packer, request);
    this.#line.schedule();
  }

  notify(notices: readonly GatewayNotice[]): void {
    for (const notice of notices) {
      if (notice.kind === 'cancel') this.#cancelled.add(notice);
      packNotice(this.#line.packer, notice);
    }
    this.#line.schedule();
  }

  #received(unpacker: Unpacker): void {
    this.#heard();
    const unpacked = new EventUnpacker(unpacker);
    let events: GatewayEvent[] = [];
    for (const item of unpacker.items) {
      const event = unpacked.event(item);
      if (event !== undefined) {
        if (this.#cancelled.has(event)) {
          if (event.kind === 'push')
            this.notify([{ kind: 'delivered', connection: event.connection, bytes: event.bytes }]);
          continue;
        }
        if (event.kind === 'standing') this.#said = event.standing;
        events.push(event);
      } else if (item[0] !== toGateway.change) {
        // In the order in which it was said.
        if (events.length > 0) this.#gateway.deliver(events);
        events = [];
        this.#take(item);
      }
    }
    if (events.length > 0) this.#gateway.deliver(events);
  }

  #take(item: Item): void {
    switch (item[0]) {
      case toGateway.admission:
        this.#principals.decided(Number(item[1]), item[2] === true);
        return;
      case toGateway.share:
        this.#principals.share(String(item[1]), Number(item[2]));
        return;
      case toGateway.replaced:
        this.#gateway.replaced(String(item[1]), Number(item[2]));
        return;
      case toGateway.cancelled:
        this.#cancelled.confirmed(Number(item[1]), Number(item[2]));
        return;
      case toGateway.tick:
        this.#report();
        return;
      case toGateway.call: {
        const [, number, name, argument] = item as readonly [number, number, CallName, never];
        void this.#perform(number, name, argument);
        return;
      }
      default:
        throw new Error(`an item with tag ${String(item[0])} means nothing to a gateway`);
    }
  }

  async #perform<Name extends CallName>(
    number: number,
    name: Name,
    argument: Calls[Name]['argument'],
  ): Promise<void> {
    try {
      const result = await perform[name](this.#gateway, argument);
      this.#line.packer.add([toServer.reply, number, true, result]);
    } catch (error) {
      this.#line.packer.add([toServer.reply, number, false, crossing(error)]);
    }
    if (name === 'close') {
      this.#stopWatching?.();
      this.#delay.disable();
    }
    this.#line.schedule();
  }

  #report(): void {
    const measured = this.#delay.count > 0;
    const report: ThreadReport = {
      connections: this.#gateway.connections,
      ...this.#counts.take(),
      delayP99Ms: measured ? this.#delay.percentile(99) / 1e6 : 0,
      delayMaxMs: measured ? this.#delay.max / 1e6 : 0,
    };
    this.#delay.reset();
    this.#line.packer.add([toServer.report, report]);
    this.#line.schedule();
  }

  /**
   * A server whose loop stands still says nothing, not even that it knows no leader, while its agents here are pinged:
   * they would wait on it for ever. So its silence counts as that.
   */
  #watch(): void {
    const silentMs = this.#clock.nowMs() - this.#heardAtMs;
    if (this.#silent || silentMs < this.#leaderlessMs) return;
    this.#silent = true;
    this.#gateway.deliver([{ kind: 'standing', standing: { ...this.#said, leaderlessMs: silentMs } }]);
  }

  #heard(): void {
    this.#heardAtMs = this.#clock.nowMs();
    if (!this.#silent) return;
    this.#silent = false;
    this.#gateway.deliver([{ kind: 'standing', standing: this.#said }]);
  }
}

/** Serves agents in this thread until it is ended. An error that nobody has caught is for the thread's owner. */
export const runGatewayThread = (
  port: ThreadPort,
  data: GatewayThreadData,
  logger: GatewayLogger,
  clock: GatewayClock = systemClock,
): void => {
  const thread = new GatewayThread(port, data, logger, clock);
  thread.start();
};

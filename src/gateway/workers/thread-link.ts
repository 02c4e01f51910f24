/** The main thread's side of one gateway thread: for the server it is a gateway as any other. */
import type {
  Gateway as DeliveryGateway,
  GatewayEvent,
  GatewayNotice,
  GatewayPort,
  GatewayRequest,
} from '../../server/index.ts';
import type { GatewayLogger } from '../settings.ts';
import { crossed } from './calls.ts';
import type { CallName, Calls, CrossingError } from './calls.ts';
import { Line } from './line.ts';
import type { ThreadPort } from './line.ts';
import type { Item, Unpacker } from './packing.ts';
import type { ThreadReport } from './thread.ts';
import { EventPacker, toGateway } from './to-gateway.ts';
import { toServer, unpackNotice, unpackRequest } from './to-server.ts';

/** What is used of a worker of node:worker_threads. */
export interface GatewayWorker extends ThreadPort {
  on(event: 'message', listener: Parameters<ThreadPort['on']>[1]): unknown;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  on(event: 'exit', listener: (code: number) => void): unknown;
  unref(): void;
  terminate(): Promise<unknown>;
}

export interface ThreadLinkOwner {
  readonly logger: GatewayLogger;
  /** One of its principal's connections wants to be admitted. Tells whether it is, and then, by `tellShare`, the shares. */
  enters(place: number, ticket: number, principal: string, max: number): void;
  /** One that is there for so long is the only one that its principal may have now. */
  sole(place: number, principal: string, ageMs: number): void;
  leaves(place: number, principal: string): void;
  reported(place: number, report: ThreadReport): void;
  failed(error: Error): void;
}

/** It has not answered for so many seconds of the main thread's: it is told about, and given up. */
const silentSecondsToWarn = 5;
const silentSecondsMax = 60;

export class ThreadLink implements DeliveryGateway {
  readonly place: number;
  readonly #owner: ThreadLinkOwner;
  readonly #line: Line;
  readonly #worker: GatewayWorker;
  readonly #port: GatewayPort;
  readonly #calls = new Map<
    number,
    { readonly resolve: (result: never) => void; readonly reject: (error: Error) => void }
  >();
  #lastCall = 0;
  #connections = 0;
  /** Ticks that it has not answered; they are counted, not timed, so that a process that was stopped blames nobody. */
  #unanswered = 0;
  #ended = false;

  constructor(place: number, worker: GatewayWorker, port: GatewayPort, owner: ThreadLinkOwner) {
    this.place = place;
    this.#owner = owner;
    this.#worker = worker;
    this.#port = port;
    this.#line = new Line(worker);
    this.#line.listen((unpacker) => this.#received(unpacker));
    worker.on('error', (error) => this.#died(error));
    worker.on('exit', (code) => this.#died(new Error(`it ended with code ${code}`)));
  }

  /** As of its last report. */
  get connections(): number {
    return this.#connections;
  }

  /** For how many seconds it has been silent. */
  get silentSeconds(): number {
    return Math.max(0, this.#unanswered - 1);
  }

  deliver(events: readonly GatewayEvent[]): void {
    const packer = new EventPacker(this.#line.packer);
    for (const event of events) packer.add(event);
    this.#line.flush();
  }

  /** Once a second. */
  tick(): void {
    if (this.#ended) return;
    this.#unanswered += 1;
    if (this.#unanswered === 1) {
      this.#line.packer.add([toGateway.tick]);
      this.#line.schedule();
    } else if (this.#unanswered === silentSecondsToWarn + 1) {
      const fields = { thread: this.place, agents: this.#connections, seconds: silentSecondsToWarn };
      this.#owner.logger.error(fields, 'a gateway thread stands still: its agents are not served');
    } else if (this.#unanswered > silentSecondsMax) {
      this.#died(new Error(`it has stood still for ${silentSecondsMax} s`));
    }
  }

  /** Resolves when it is done there; rejects with what went wrong there. */
  call<Name extends CallName>(name: Name, argument: Calls[Name]['argument']): Promise<Calls[Name]['result']> {
    if (this.#ended) return Promise.reject(new Error(`gateway thread ${this.place} has ended`));
    this.#lastCall += 1;
    const number = this.#lastCall;
    this.#line.packer.add([toGateway.call, number, name, argument]);
    this.#line.schedule();
    return new Promise((resolve, reject) => {
      this.#calls.set(number, { resolve, reject });
    });
  }

  admit(ticket: number, admitted: boolean): void {
    this.#line.packer.add([toGateway.admission, ticket, admitted]);
    this.#line.schedule();
  }

  tellShare(principal: string, share: number): void {
    this.#line.packer.add([toGateway.share, principal, share]);
    this.#line.schedule();
  }

  /** `newerAgeMs`: since when the other one is there; what is newer than that was not meant. */
  tellReplaced(principal: string, newerAgeMs: number): void {
    this.#line.packer.add([toGateway.replaced, principal, newerAgeMs]);
    this.#line.schedule();
  }

  /** It has closed its gateway. `leave`: it goes with the process, because it has a descriptor that is not its own. */
  async end(leave: boolean): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#connections = 0;
    this.#line.close();
    if (leave) this.#worker.unref();
    else await this.#worker.terminate();
  }

  #received(unpacker: Unpacker): void {
    this.#heard();
    const requests: GatewayRequest[] = [];
    const notices: GatewayNotice[] = [];
    // Each kind together, but never past one of the other: the one may cancel the other.
    const submit = (): void => {
      if (requests.length > 0) this.#port.submit(requests.splice(0));
    };
    const notify = (): void => {
      if (notices.length === 0) return;
      const told = notices.splice(0);
      this.#port.notify(told);
      this.#confirmCancels(told);
    };
    for (const item of unpacker.items) {
      const request = unpackRequest(unpacker, item);
      const notice = request === undefined ? unpackNotice(item) : undefined;
      if (request !== undefined) {
        notify();
        requests.push(request);
      } else if (notice !== undefined) {
        submit();
        notices.push(notice);
      } else {
        this.#take(item);
      }
    }
    submit();
    notify();
  }

  /** Behind all that was said of them before. */
  #confirmCancels(told: readonly GatewayNotice[]): void {
    for (const notice of told) {
      if (notice.kind !== 'cancel') continue;
      this.#line.packer.add([toGateway.cancelled, notice.connection, notice.request]);
      this.#line.schedule();
    }
  }

  /** It lives; the tick that it was told of last may still be unanswered. */
  #heard(): void {
    if (this.#unanswered > silentSecondsToWarn)
      this.#owner.logger.info({ thread: this.place }, 'a gateway thread goes on');
    this.#unanswered = Math.min(this.#unanswered, 1);
  }

  #take(item: Item): void {
    switch (item[0]) {
      case toServer.enter: {
        const [, ticket, principal, max] = item as readonly [number, number, string, number];
        this.#owner.enters(this.place, ticket, principal, max);
        return;
      }
      case toServer.sole:
        this.#owner.sole(this.place, String(item[1]), Number(item[2]));
        return;
      case toServer.leave:
        this.#owner.leaves(this.place, String(item[1]));
        return;
      case toServer.reply:
        this.#replied(Number(item[1]), item[2] === true, item[3]);
        return;
      case toServer.report: {
        const report = item[1] as ThreadReport;
        this.#unanswered = 0;
        this.#connections = report.connections;
        this.#owner.reported(this.place, report);
        return;
      }
      default:
        throw new Error(`an item with tag ${String(item[0])} means nothing to a server`);
    }
  }

  #replied(number: number, ok: boolean, result: unknown): void {
    const call = this.#calls.get(number);
    if (call === undefined)
      throw new Error(`a gateway thread has answered call ${number}, which nobody made`);
    this.#calls.delete(number);
    if (ok) call.resolve(result as never);
    else call.reject(crossed(result as CrossingError));
  }

  /** Its agents are without a server that they could notice the loss of: nothing goes on without it. */
  #died(cause: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#line.close();
    const why = cause instanceof Error ? cause.message : String(cause);
    const error = new Error(`gateway thread ${this.place} has failed: ${why}`, { cause });
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
    this.#owner.failed(error);
  }
}

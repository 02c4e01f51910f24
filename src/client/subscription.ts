/**
 * A subscription as its reader sees it: an async iterable that outlives connections. It ends only when the reader
 * leaves, its signal aborts, the client is closed, or the server ends it for good, whose reason the iterator throws.
 */
import { FuturestoreError } from '../protocol/index.ts';
import type { Failure, Position, Push, RequestBody, SubscriptionStart } from '../protocol/index.ts';
import { ChangeBuffer } from './change-buffer.ts';
import type { SubscriptionEvent } from './change-buffer.ts';
import { CancelledError } from './errors.ts';
import type { Timed } from './timers.ts';

/**
 * Beyond either the server is asked to stop, and to continue when the reader has taken most of it. One exception: where
 * what is missing of the present state could not be continued from (its position was too old, and it began again), it is
 * taken as a whole, however large. Stopped again it would begin again, and a slow reader would never arrive.
 */
const bufferedChangesMax = 16_384;
const bufferedBytesMax = 16 * 1024 * 1024;
const resumeBelow = 0.25;

export interface SubscriptionOwner {
  /** Wants to be subscribed again from where it stands. */
  resubscribe(subscription: Subscription): void;
  /** Wants to be heard no more of for now (`over`: for good). */
  unsubscribe(subscription: Subscription, over: boolean): void;
}

type Phase =
  /** Not subscribed on the present connection. */
  | { readonly kind: 'detached' }
  | { readonly kind: 'requested'; readonly request: number }
  | { readonly kind: 'catching_up'; readonly request: number }
  | { readonly kind: 'live'; readonly request: number }
  /** The buffer is full; the server was told to stop. */
  | { readonly kind: 'suspended' }
  /** Ended; `error` is thrown once the buffer is empty. */
  | { readonly kind: 'over'; readonly error: FuturestoreError | undefined };

interface Waiter {
  resolve(result: IteratorResult<SubscriptionEvent, undefined>): void;
  reject(error: FuturestoreError): void;
}

export class Subscription implements AsyncIterableIterator<SubscriptionEvent, undefined>, Timed {
  readonly patterns: readonly string[];
  readonly #start: SubscriptionStart;
  readonly #owner: SubscriptionOwner;
  readonly #signal: AbortSignal | undefined;
  readonly #buffer: ChangeBuffer;
  readonly #waiters: Waiter[] = [];
  #phase: Phase = { kind: 'detached' };
  #caughtUpOnce = false;
  /** `early`: the server was told to stop before it had sent all of the present state. `no_more`: and then began again. */
  #stopped: 'no' | 'early' | 'no_more' = 'no';
  /** Refusals since it last went well. */
  retries = 0;
  dueAtMs = 0;
  heapIndex = -1;

  constructor(
    patterns: readonly string[],
    start: SubscriptionStart,
    owner: SubscriptionOwner,
    signal: AbortSignal | undefined,
  ) {
    this.patterns = patterns;
    this.#start = start;
    this.#owner = owner;
    this.#signal = signal;
    this.#buffer = new ChangeBuffer(start.kind === 'after' ? start.position : undefined);
    signal?.addEventListener('abort', this);
  }

  /**
   * Where to continue later, also in another process: pass it as `from`. All that this iterator has handed out is
   * before it, and nothing else. Undefined until the server has said where the subscription starts.
   */
  get position(): Position | undefined {
    return this.#buffer.handedOut;
  }

  /**
   * All that the connected server has of it has been handed out. False while there is no connection, while it catches up
   * after one was lost, and while the reader is behind.
   */
  get isCurrent(): boolean {
    return this.#phase.kind === 'live' && this.#buffer.isEmpty;
  }

  /** On the present connection; 0: none. */
  get request(): number {
    const phase = this.#phase;
    return phase.kind === 'requested' || phase.kind === 'catching_up' || phase.kind === 'live'
      ? phase.request
      : 0;
  }

  /** Whether it is to be subscribed when there is a connection. */
  get wanting(): boolean {
    return this.#phase.kind === 'detached';
  }

  /** What to ask the server. */
  body(request: number): RequestBody {
    this.#phase = { kind: 'requested', request };
    const position = this.#buffer.received;
    const start: SubscriptionStart = position === undefined ? this.#start : { kind: 'after', position };
    return { kind: 'subscribe', patterns: this.patterns, start };
  }

  /** The connection is gone, or it is to be tried again. */
  detach(): void {
    if (this.request !== 0) this.#phase = { kind: 'detached' };
  }

  subscribed(position: Position, reset: boolean): void {
    if (this.#phase.kind !== 'requested') return;
    this.#phase = { kind: 'catching_up', request: this.#phase.request };
    if (reset) {
      this.#caughtUpOnce = false;
      if (this.#stopped === 'early') this.#stopped = 'no_more';
    }
    const present = this.#start.kind === 'present_state' && this.#buffer.received === undefined;
    this.#buffer.startedAt(position, reset ? 'reset' : present ? 'present_state' : 'continued');
    this.#serve();
  }

  pushed(push: Push): void {
    const phase = this.#phase;
    if (phase.kind !== 'catching_up' && phase.kind !== 'live') return;
    this.retries = 0;
    for (const change of push.changes) this.#buffer.add(change);
    this.#buffer.reached(push.revision);
    if (push.caughtUp) {
      this.#phase = { kind: 'live', request: phase.request };
      // The reader is told once; that a resumed one has caught up again is no news.
      if (!this.#caughtUpOnce) this.#buffer.caughtUp();
      this.#caughtUpOnce = true;
      this.#stopped = 'no';
    }
    this.#serve();
    const full = this.#buffer.size > bufferedChangesMax || this.#buffer.bytes > bufferedBytesMax;
    if (full && this.#stopped !== 'no_more') {
      if (this.#phase.kind !== 'live') this.#stopped = 'early';
      this.#owner.unsubscribe(this, false);
      this.#phase = { kind: 'suspended' };
    }
  }

  /** A heartbeat: what is live has seen all up to this revision. */
  heard(revision: number): void {
    if (this.#phase.kind === 'live') this.#buffer.reached(revision);
  }

  /** It is over; the error, if any, is thrown when all that was received has been taken. */
  end(error: FuturestoreError | undefined): void {
    if (this.#phase.kind === 'over') return;
    this.#phase = { kind: 'over', error };
    this.#signal?.removeEventListener('abort', this);
    this.#serve();
  }

  failed(failure: Failure): void {
    this.end(new FuturestoreError(failure.code, failure.message));
  }

  /** What the timers call: its pause after a refusal is over. */
  due(): void {
    if (this.#phase.kind === 'detached') this.#owner.resubscribe(this);
  }

  /** What the abort signal calls. */
  handleEvent(): void {
    this.#leave(
      new CancelledError('the subscription was cancelled by its signal', false, this.#signal?.reason),
    );
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Ends the subscription. Also what leaving a `for await` loop does. */
  return(): Promise<IteratorResult<SubscriptionEvent, undefined>> {
    this.#leave(undefined);
    return Promise.resolve({ done: true, value: undefined });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  next(): Promise<IteratorResult<SubscriptionEvent, undefined>> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
    });
  }

  #leave(error: FuturestoreError | undefined): void {
    if (this.#phase.kind === 'over') return;
    this.#owner.unsubscribe(this, true);
    this.end(error);
  }

  #serve(): void {
    let taken = 0;
    for (;;) {
      const waiter = this.#waiters[taken];
      if (waiter === undefined) break;
      const event = this.#buffer.shift();
      if (event !== undefined) waiter.resolve({ done: false, value: event });
      else if (this.#phase.kind === 'over') this.#serveEnd(waiter);
      else break;
      taken += 1;
    }
    if (taken > 0) this.#waiters.splice(0, taken);
    if (this.#phase.kind === 'suspended' && this.#mayResume()) {
      this.#phase = { kind: 'detached' };
      this.#owner.resubscribe(this);
    }
  }

  #serveEnd(waiter: Waiter): void {
    if (this.#phase.kind !== 'over') return;
    const { error } = this.#phase;
    // Thrown once; after that it is simply over.
    this.#phase = { kind: 'over', error: undefined };
    if (error === undefined) waiter.resolve({ done: true, value: undefined });
    else waiter.reject(error);
  }

  #mayResume(): boolean {
    return (
      this.#buffer.size <= bufferedChangesMax * resumeBelow &&
      this.#buffer.bytes <= bufferedBytesMax * resumeBelow
    );
  }
}

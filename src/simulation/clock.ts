/** Virtual time: what is to happen when, and whose it is. */
import type { Environment, Timer } from '../server/index.ts';
import { drainMicrotasks } from './microtasks.ts';
import type { Random } from './random.ts';

/** Of a process, or of nobody: what belongs to a dead one never happens, what belongs to a stopped one waits. */
export class Life {
  readonly name: string;
  alive = true;
  /** While the process is stopped: what would have happened to it. */
  held: Scheduled[] | undefined;
  /** It is at work until then; what happens to it meanwhile waits in line. */
  busyUntilMs = 0;
  line: Scheduled[] = [];

  constructor(name: string) {
    this.name = name;
  }

  get stopped(): boolean {
    return this.held !== undefined;
  }
}

/** A timer of the process itself; everything else comes from outside. `line`: the next one in line has its turn. */
export type EventKind = 'timer' | 'input' | 'line';

export class Scheduled {
  readonly atMs: number;
  readonly order: number;
  readonly life: Life;
  readonly kind: EventKind;
  readonly callback: () => void;
  cancelled = false;

  constructor(atMs: number, order: number, life: Life, kind: EventKind, callback: () => void) {
    this.atMs = atMs;
    this.order = order;
    this.life = life;
    this.kind = kind;
    this.callback = callback;
  }
}

const before = (one: Scheduled, other: Scheduled): boolean =>
  one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);

export class VirtualTime {
  /** The world's own events. */
  readonly world = new Life('world');
  /** Called after each event, when everything that waited for its promises has gone on. */
  afterEvent: ((life: Life) => void) | undefined;
  #nowMs = 0;
  #order = 0;
  /** Below all of `#order`: what piled up comes before what arrives in the instant in which a process goes on. */
  #piledUpOrder = Number.MIN_SAFE_INTEGER;
  #events = 0;
  readonly #heap: Scheduled[] = [];

  get nowMs(): number {
    return this.#nowMs;
  }

  /** How many have happened. */
  get events(): number {
    return this.#events;
  }

  at(atMs: number, life: Life, kind: EventKind, callback: () => void): Scheduled {
    this.#order += 1;
    const scheduled = new Scheduled(Math.max(atMs, this.#nowMs), this.#order, life, kind, callback);
    this.#push(scheduled);
    return scheduled;
  }

  after(delayMs: number, life: Life, kind: EventKind, callback: () => void): Scheduled {
    return this.at(this.#nowMs + delayMs, life, kind, callback);
  }

  /** The process stands still; only what is outside of it goes on. */
  stop(life: Life): void {
    life.held ??= [];
  }

  /** It goes on with all that has piled up: `timersFirst`, as Node does it, or in the order of time. */
  resume(life: Life, timersFirst: boolean): void {
    const { held } = life;
    if (held === undefined) return;
    life.held = undefined;
    const order = timersFirst
      ? [...held.filter(({ kind }) => kind === 'timer'), ...held.filter(({ kind }) => kind !== 'timer')]
      : held;
    for (const event of order) if (!event.cancelled) this.#again(event);
  }

  /** A timer may still be cancelled by whoever holds it. */
  #again(event: Scheduled): void {
    this.#piledUpOrder += 1;
    const again = new Scheduled(this.#nowMs, this.#piledUpOrder, event.life, event.kind, () => {
      if (!event.cancelled) event.callback();
    });
    this.#push(again);
  }

  /** Runs the next event, if it is due by `untilMs`; false: there is none, and it is `untilMs` now. */
  runNext(untilMs: number): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) {
        this.#nowMs = Math.max(this.#nowMs, untilMs);
        return false;
      }
      this.#pop();
      const { life } = next;
      if (next.cancelled || !life.alive) continue;
      this.#nowMs = next.atMs;
      if (life.held !== undefined) {
        life.held.push(next);
        continue;
      }
      if (next.kind !== 'line' && (life.busyUntilMs > this.#nowMs || life.line.length > 0)) {
        this.#lineUp(next);
        continue;
      }
      this.#events += 1;
      next.callback();
      drainMicrotasks();
      this.afterEvent?.(life);
      return true;
    }
  }

  #lineUp(event: Scheduled): void {
    const { life } = event;
    life.line.push(event);
    if (life.line.length === 1) this.at(life.busyUntilMs, life, 'line', () => this.#nextInLine(life));
  }

  #nextInLine(life: Life): void {
    const next = life.line[0];
    if (next === undefined) return;
    if (!next.cancelled) next.callback();
    life.line.shift();
    if (life.line.length > 0) this.at(life.busyUntilMs, life, 'line', () => this.#nextInLine(life));
  }

  #push(scheduled: Scheduled): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(scheduled);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Scheduled;
      if (!before(scheduled, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = scheduled;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    const { length } = heap;
    if (last === undefined || length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= length) break;
      if (child + 1 < length && before(heap[child + 1] as Scheduled, heap[child] as Scheduled)) child += 1;
      const below = heap[child] as Scheduled;
      if (!before(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}

/** In the middle of 2023: any moment would do. */
const wallStartMs = 1_700_000_000_000;

/** The clocks of one machine: its oscillator, and what it takes for the time of day. They outlive its processes. */
export class MachineClock {
  readonly #time: VirtualTime;
  /** Milliseconds by this machine per millisecond. */
  #rate = 1;
  #rateSinceMs = 0;
  #monotonicThenMs = 0;
  wallOffsetMs: number;
  /** A slow processor: between two looks at the clock so much time has passed. */
  lookTakesMs = 0;
  #lastLookMs = 0;

  constructor(time: VirtualTime, wallOffsetMs: number) {
    this.#time = time;
    this.wallOffsetMs = wallOffsetMs;
  }

  get rate(): number {
    return this.#rate;
  }

  set rate(rate: number) {
    this.#monotonicThenMs = this.#oscillatorMs();
    this.#rateSinceMs = this.#time.nowMs;
    this.#rate = rate;
  }

  #oscillatorMs(): number {
    return this.#monotonicThenMs + (this.#time.nowMs - this.#rateSinceMs) * this.#rate;
  }

  /** `life`: whose time the look takes. */
  monotonicMs(life?: Life): number {
    const nowMs = this.#oscillatorMs();
    if (life === undefined || (this.lookTakesMs === 0 && nowMs >= this.#lastLookMs)) {
      return Math.max(nowMs, this.#lastLookMs);
    }
    this.#lastLookMs = Math.max(nowMs, this.#lastLookMs) + this.lookTakesMs;
    life.busyUntilMs = this.#time.nowMs + this.worldMs(this.#lastLookMs - nowMs);
    return this.#lastLookMs;
  }

  wallMs(): number {
    return Math.floor(wallStartMs + this.#oscillatorMs() + this.wallOffsetMs);
  }

  /** How long the world waits while this machine counts `durationMs`. */
  worldMs(durationMs: number): number {
    return durationMs / this.#rate;
  }

  environment(life: Life, random: Random): Environment {
    const time = this.#time;
    return {
      wallMs: () => this.wallMs(),
      monotonicMs: () => this.monotonicMs(life),
      random: random.next,
      randomBytes: (count) => random.bytes(count),
      defer: (callback) => {
        time.after(0, life, 'input', callback);
      },
      setTimer: (delayMs, callback): Timer => {
        const scheduled = time.after(this.worldMs(delayMs), life, 'timer', callback);
        return {
          cancel: () => {
            scheduled.cancelled = true;
          },
        };
      },
    };
  }
}

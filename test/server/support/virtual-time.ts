import type { Environment, Timer } from '../../../src/server/index.ts';

interface Scheduled {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
  cancelled: boolean;
}

/** May be changed by the test. */
export interface ProcessClock {
  /** A wall clock that is wrong, or jumps. */
  wallOffsetMs: number;
  /** The process does nothing until then: its loop is busy, or it was stopped. */
  stoppedUntilMs: number;
}

/** Lets everything that waits for a promise go on, until nothing does. */
const settlePromises = async (): Promise<void> => {
  for (let round = 0; round < 3; round += 1) await new Promise<void>((resolve) => setImmediate(resolve));
};

/** Time that passes only when a test says so. Every server gets an environment with a wall clock of its own. */
export class VirtualTime {
  #nowMs = 0;
  #order = 0;
  #queue: Scheduled[] = [];
  #seed: number;

  constructor(seed = 1) {
    this.#seed = seed;
  }

  /** Each look at a monotonic clock takes so long: for what is bounded by time. */
  readingTakesMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  /** mulberry32: small, seeded, good enough for jitter. */
  random(): number {
    this.#seed = (this.#seed + 0x6d2b79f5) | 0;
    let t = this.#seed;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  after(delayMs: number, callback: () => void): Timer {
    const scheduled: Scheduled = {
      atMs: this.#nowMs + delayMs,
      order: (this.#order += 1),
      callback,
      cancelled: false,
    };
    this.#queue.push(scheduled);
    return {
      cancel: () => {
        scheduled.cancelled = true;
      },
    };
  }

  environment(clock: ProcessClock): Environment {
    return {
      wallMs: () => 1_700_000_000_000 + this.#nowMs + clock.wallOffsetMs,
      monotonicMs: () => (this.#nowMs += this.readingTakesMs),
      random: () => this.random(),
      randomBytes: (count) => Uint8Array.from({ length: count }, () => Math.floor(this.random() * 256)),
      defer: (callback) => {
        this.after(0, () => this.takeUp(clock, callback));
      },
      setTimer: (delayMs, callback) => {
        const timer = { cancelled: false };
        const run = (): void => {
          if (!timer.cancelled) callback();
        };
        const due = this.after(delayMs, () => this.takeUp(clock, run));
        return {
          cancel: () => {
            timer.cancelled = true;
            due.cancel();
          },
        };
      },
    };
  }

  /** Now; or, in a process that is stopped, when it goes on, in the order in which things came up. */
  takeUp(clock: ProcessClock, work: () => void): void {
    if (clock.stoppedUntilMs <= this.#nowMs) work();
    else this.after(clock.stoppedUntilMs - this.#nowMs, () => this.takeUp(clock, work));
  }

  /** Runs everything that is due within the next `durationMs`. */
  async run(durationMs: number): Promise<void> {
    const untilMs = this.#nowMs + durationMs;
    await settlePromises();
    for (;;) {
      let next: Scheduled | undefined;
      for (const scheduled of this.#queue) {
        if (scheduled.cancelled || scheduled.atMs > untilMs) continue;
        if (
          !next ||
          scheduled.atMs < next.atMs ||
          (scheduled.atMs === next.atMs && scheduled.order < next.order)
        ) {
          next = scheduled;
        }
      }
      if (!next) break;
      const due = next;
      this.#queue = this.#queue.filter((scheduled) => scheduled !== due && !scheduled.cancelled);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.callback();
      await settlePromises();
    }
    this.#nowMs = untilMs;
  }

  /** Runs until the condition holds; fails after `withinMs` of virtual time. */
  async until(what: string, condition: () => boolean, withinMs = 30_000): Promise<void> {
    const endMs = this.#nowMs + withinMs;
    while (!condition()) {
      if (this.#nowMs >= endMs) throw new Error(`${what}: not within ${withinMs} ms of virtual time`);
      await this.run(10);
    }
  }
}

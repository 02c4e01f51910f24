/** A server's disk: how long its writes take, and what goes wrong with it. It outlives the processes on it. */
import { MemoryDisk } from '../storage/index.ts';
import type { Life, VirtualTime } from './clock.ts';
import type { Random } from './random.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export interface DiskConditions {
  /** Of a synced write; an unsynced one takes a tenth. */
  readonly latencyMs: number;
}

const fullError = (): Error =>
  Object.assign(new Error('ENOSPC: no space left (simulated)'), { code: 'ENOSPC' });

export class Disk {
  memory: MemoryDisk;
  readonly #time: VirtualTime;
  readonly #random: Random;
  readonly #trace: Trace;
  readonly #counts: Counts;
  readonly #name: string;
  readonly #latencyMs: number;
  slowness = 1;
  /** Nothing is answered before. */
  hungUntilMs = 0;
  /** All writes fail until then. */
  fullUntilMs = 0;
  /** The next write fails. */
  failNext = false;
  /** Whose writes these are. */
  #life: Life | undefined;
  #lastCompletionMs = 0;
  /** Copies from before each start, oldest first. */
  readonly copies: MemoryDisk[] = [];

  constructor(options: {
    readonly name: string;
    readonly time: VirtualTime;
    readonly random: Random;
    readonly trace: Trace;
    readonly counts: Counts;
    readonly conditions: DiskConditions;
  }) {
    this.#name = options.name;
    this.#time = options.time;
    this.#random = options.random;
    this.#trace = options.trace;
    this.#counts = options.counts;
    this.#latencyMs = options.conditions.latencyMs;
    this.memory = new MemoryDisk(options.name);
  }

  /** A process is about to open it. */
  attach(life: Life): void {
    this.#life = life;
    this.#lastCompletionMs = this.#time.nowMs;
    this.memory.manual = true;
    this.memory.onPending = (bytes, sync) => {
      this.#pending(life, bytes, sync);
    };
  }

  /** Another disk in its place. */
  replace(memory: MemoryDisk): void {
    this.memory = memory;
  }

  /** Whatever is not synced may be lost; `keepSome`: as chance will have it, else all of it. */
  crash(keepSome: boolean): void {
    this.#life = undefined;
    this.memory.onPending = undefined;
    this.memory.crash(keepSome ? this.#random.next : undefined);
    this.failNext = false;
  }

  get full(): boolean {
    return this.#time.nowMs < this.fullUntilMs;
  }

  #pending(life: Life, bytes: number, sync: boolean): void {
    const takesMs =
      (sync ? this.#latencyMs : this.#latencyMs / 10) * this.slowness * this.#random.between(0.5, 1.5) +
      bytes / 100_000;
    const atMs = Math.max(Math.ceil(this.#time.nowMs + takesMs), this.#lastCompletionMs, this.hungUntilMs);
    this.#lastCompletionMs = atMs;
    this.#time.at(atMs, life, 'input', () => this.#complete(life));
  }

  #complete(life: Life): void {
    if (this.#life !== life) return;
    if (this.#time.nowMs < this.hungUntilMs) {
      this.#time.at(this.hungUntilMs, life, 'input', () => this.#complete(life));
      return;
    }
    if (this.full || this.failNext) {
      this.#counts.add(this.full ? 'write failed: full' : 'write failed');
      this.#trace.say(`${this.#name}: a write fails${this.full ? ', it is full' : ''}`);
      if (this.full) this.memory.failNextWrite(fullError());
      else this.memory.failNextWrite();
      this.failNext = false;
    }
    this.memory.completeNext();
  }
}

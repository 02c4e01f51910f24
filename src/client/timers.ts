/** All deadlines of one client on one timer: a binary heap whose items know their place. */
import { strict as assert } from 'node:assert';
import type { ClientEnvironment, TimerHandle } from './environment.ts';

/** Owned by the heap while it is in it; `heapIndex` is -1 outside. */
export interface Timed {
  dueAtMs: number;
  heapIndex: number;
  due(nowMs: number): void;
}

/** What JavaScript's timers can hold; a longer wait is made of several. */
const timerDelayMsMax = 2 ** 31 - 1;

export class Timers {
  readonly #environment: ClientEnvironment;
  readonly #heap: Timed[] = [];
  readonly #fire = (): void => {
    this.#fired();
  };
  #handle: TimerHandle;
  /** When the environment's timer fires; Infinity without one. Never later than the heap's first. */
  #armedAtMs = Infinity;

  constructor(environment: ClientEnvironment) {
    this.#environment = environment;
  }

  get size(): number {
    return this.#heap.length;
  }

  /** Puts the item in, or moves it if it is in already. */
  set(item: Timed, dueAtMs: number): void {
    assert(!Number.isNaN(dueAtMs), 'a deadline must be a number');
    item.dueAtMs = dueAtMs;
    if (item.heapIndex < 0) {
      item.heapIndex = this.#heap.length;
      this.#heap.push(item);
    }
    this.#up(item.heapIndex);
    this.#down(item.heapIndex);
    this.#arm();
  }

  /** Takes the item out; nothing happens if it is not in. */
  clear(item: Timed): void {
    const index = item.heapIndex;
    if (index < 0) return;
    assert(this.#heap[index] === item, 'the item belongs to another heap');
    const last = this.#heap.pop();
    item.heapIndex = -1;
    if (last !== undefined && last !== item) {
      this.#place(last, index);
      this.#up(index);
      this.#down(last.heapIndex);
    }
    // The timer may now fire too early, which costs less than arming it anew for every answer in time.
    if (this.#heap.length === 0) this.#disarm();
  }

  #fired(): void {
    this.#armedAtMs = Infinity;
    const nowMs = this.#environment.now();
    let first = this.#heap[0];
    while (first !== undefined && first.dueAtMs <= nowMs) {
      this.clear(first);
      first.due(nowMs);
      first = this.#heap[0];
    }
    this.#arm();
  }

  #arm(): void {
    const first = this.#heap[0];
    if (first === undefined || first.dueAtMs >= this.#armedAtMs) return;
    this.#disarm();
    this.#armedAtMs = first.dueAtMs;
    const delayMs = Math.max(0, Math.ceil(first.dueAtMs - this.#environment.now()));
    this.#handle = this.#environment.setTimer(Math.min(delayMs, timerDelayMsMax), this.#fire);
  }

  #disarm(): void {
    if (this.#armedAtMs === Infinity) return;
    this.#environment.clearTimer(this.#handle);
    this.#armedAtMs = Infinity;
  }

  #place(item: Timed, index: number): void {
    this.#heap[index] = item;
    item.heapIndex = index;
  }

  #up(start: number): void {
    let index = start;
    const item = this.#heap[index];
    if (item === undefined) return;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = this.#heap[parentIndex];
      if (parent === undefined || parent.dueAtMs <= item.dueAtMs) break;
      this.#place(parent, index);
      index = parentIndex;
    }
    this.#place(item, index);
  }

  #down(start: number): void {
    let index = start;
    const item = this.#heap[index];
    if (item === undefined) return;
    for (;;) {
      const left = this.#heap[2 * index + 1];
      const right = this.#heap[2 * index + 2];
      const child = right !== undefined && left !== undefined && right.dueAtMs < left.dueAtMs ? right : left;
      if (child === undefined || child.dueAtMs >= item.dueAtMs) break;
      const childIndex = child.heapIndex;
      this.#place(child, index);
      index = childIndex;
    }
    this.#place(item, index);
  }
}

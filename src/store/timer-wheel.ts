/**
 * Who is due when, for a hundred thousand instants and more (G. Varghese, A. Lauck: Hashed and hierarchical timing
 * wheels, 1987). Seven wheels of 256 slots, a millisecond to a slot in the lowest, hold every instant below 2^53.
 * A timer sits in the lowest wheel in which all higher digits (to the base 256) of its instant are those of the
 * wheel's own time. Cancelling takes the timer out at once, so that instants far away that are moved again and again
 * cost no memory. The work of one call is bounded: what is left of moving timers waits for the next.
 */
import { assert } from './assert.ts';

const slots = 256;
const levels = 7;
/** Timers moved in one `due`: below 2 ms. */
const movesMax = 16_384;
/** Timers moved in one `keepUp`, which comes with every applied entry. */
const keepUpMovesMax = 1024;

interface Pile<T> {
  readonly timers: Timer<T>[];
  readonly level: number;
}

/** Only the wheel touches `pile` and `place`. */
export interface Timer<T> {
  readonly atMs: number;
  readonly target: T;
  pile: Pile<T> | undefined;
  place: number;
}

/** The level of the piles that are in no wheel. */
const noLevel = levels;

export class TimerWheel<T> {
  readonly #wheels: (Pile<T> | undefined)[][] = Array.from({ length: levels }, () => []);
  /** How many timers each wheel has; the last number is of those in none. */
  readonly #counts: number[] = Array.from({ length: levels + 1 }, () => 0);
  /** Their instant has come. */
  #ready: Pile<T> = { timers: [], level: noLevel };
  /** Were given out by `due`. */
  #given: Pile<T> = { timers: [], level: noLevel };
  /** Their instant has come by an earlier, faster clock than the present one. */
  readonly #early: Pile<T> = { timers: [], level: noLevel };
  #earliestMs = Infinity;
  /** Piles whose slot the wheel's time has reached, not wholly emptied yet. */
  readonly #draining: Pile<T>[] = [];
  #nowMs = 0;

  get size(): number {
    let size = 0;
    for (const count of this.#counts) size += count;
    return size;
  }

  add(atMs: number, target: T): Timer<T> {
    assert(Number.isSafeInteger(atMs) && atMs >= 0, 'an instant is no whole number of milliseconds');
    const timer: Timer<T> = { atMs, target, pile: undefined, place: 0 };
    this.#place(timer, this.#nowMs);
    return timer;
  }

  cancel(timer: Timer<T>): void {
    assert(timer.pile !== undefined, 'a timer is cancelled twice');
    this.#take(timer, timer.pile);
  }

  /** Gives nothing out, but leaves less to do for `due` when it is called at last. */
  keepUp(nowMs: number): void {
    this.#advance(nowMs, keepUpMovesMax);
  }

  /**
   * Gives out up to `limit` timers whose instant is not after `nowMs`, in no particular order; they stay in the wheel
   * until they are cancelled, but are not given out again before `rearm`. Fewer than `limit` may come although more
   * are due, when moving them took all the work of one call.
   */
  due(nowMs: number, limit: number, give: (timer: Timer<T>) => void): void {
    if (this.#earliestMs <= nowMs) this.#retryEarly();
    this.#advance(nowMs, movesMax);
    let given = 0;
    for (let moves = movesMax; moves > 0 && given < limit; moves--) {
      const timer = this.#ready.timers.at(-1);
      if (timer === undefined) return;
      this.#take(timer, this.#ready);
      if (timer.atMs > nowMs) {
        this.#put(timer, this.#early);
        this.#earliestMs = Math.min(this.#earliestMs, timer.atMs);
        continue;
      }
      this.#put(timer, this.#given);
      give(timer);
      given++;
    }
  }

  /** What was given out and is still here is given out again. */
  rearm(): void {
    // The smaller pile is moved into the larger one.
    if (this.#given.timers.length > this.#ready.timers.length) {
      const more = this.#given;
      this.#given = this.#ready;
      this.#ready = more;
    }
    this.#pour(this.#given);
  }

  #retryEarly(): void {
    this.#pour(this.#early);
    this.#earliestMs = Infinity;
  }

  #pour(pile: Pile<T>): void {
    for (let timer = pile.timers.at(-1); timer !== undefined; timer = pile.timers.at(-1)) {
      this.#take(timer, pile);
      this.#put(timer, this.#ready);
    }
  }

  /** Moves from one occupied slot to the next; empty stretches of time cost nothing. */
  #advance(targetMs: number, movesMax: number): void {
    let moves = this.#drain(targetMs, movesMax);
    while (moves > 0 && this.#nowMs < targetMs) {
      const next = this.#nextSlotMs();
      if (next > targetMs) {
        this.#nowMs = targetMs;
        return;
      }
      this.#nowMs = next;
      let unit = 1;
      for (let level = 0; level < levels && next % unit === 0; level++, unit *= slots) {
        const wheel = this.#wheels[level];
        const slot = Math.floor(next / unit) % slots;
        const pile = wheel?.[slot];
        if (wheel === undefined || pile === undefined) continue;
        // The slot means a later instant from now on.
        wheel[slot] = undefined;
        this.#draining.push(pile);
      }
      moves = this.#drain(targetMs, moves);
    }
  }

  /** Gives the moves that are left. */
  #drain(targetMs: number, moves: number): number {
    for (let pile = this.#draining.at(-1); pile !== undefined; pile = this.#draining.at(-1)) {
      for (let timer = pile.timers.at(-1); timer !== undefined; timer = pile.timers.at(-1)) {
        if (moves-- <= 0) return 0;
        this.#take(timer, pile);
        // What comes due on the way to the target needs no lower wheel.
        this.#place(timer, Math.max(this.#nowMs, targetMs));
      }
      this.#draining.pop();
    }
    return moves;
  }

  /** The next instant at which a slot is reached that has timers. */
  #nextSlotMs(): number {
    let unit = 1;
    for (let level = 0; level < levels; level++, unit *= slots) {
      if (this.#counts[level] === 0) continue;
      const wheel = this.#wheels[level] ?? [];
      const digit = Math.floor(this.#nowMs / unit) % slots;
      for (let slot = digit + 1; slot < slots; slot++) {
        const pile = wheel[slot];
        if (pile === undefined || pile.timers.length === 0) continue;
        return (Math.floor(this.#nowMs / unit / slots) * slots + slot) * unit;
      }
      assert(false, 'the timer wheel has timers in slots that it has passed');
    }
    return Infinity;
  }

  #place(timer: Timer<T>, dueMs: number): void {
    if (timer.atMs <= dueMs) {
      this.#put(timer, this.#ready);
      return;
    }
    let level = 0;
    let unit = 1;
    while (Math.floor(timer.atMs / unit / slots) !== Math.floor(this.#nowMs / unit / slots)) {
      level++;
      unit *= slots;
    }
    const wheel = this.#wheels[level];
    assert(wheel !== undefined, 'an instant is beyond the timer wheel');
    const slot = Math.floor(timer.atMs / unit) % slots;
    this.#put(timer, (wheel[slot] ??= { timers: [], level }));
  }

  #put(timer: Timer<T>, pile: Pile<T>): void {
    timer.pile = pile;
    timer.place = pile.timers.length;
    pile.timers.push(timer);
    this.#count(pile.level, 1);
  }

  #take(timer: Timer<T>, pile: Pile<T>): void {
    const last = pile.timers.pop();
    assert(last !== undefined, 'a timer is not in its pile');
    if (last !== timer) {
      assert(pile.timers[timer.place] === timer, 'a timer is not at its place');
      pile.timers[timer.place] = last;
      last.place = timer.place;
    }
    timer.pile = undefined;
    this.#count(pile.level, -1);
  }

  #count(level: number, by: number): void {
    this.#counts[level] = (this.#counts[level] ?? 0) + by;
  }
}

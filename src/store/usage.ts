/** What each principal has of the state, by who produced it: what quotas are measured against. */
import type { Failure, Future, Operation } from '../protocol/index.ts';
import type { ScopeLimits } from '../scopes/index.ts';
import { assert } from './assert.ts';

interface Amounts {
  /** Futures that are pending. */
  pending: number;
  /** Futures, whatever their state. */
  keys: number;
  /** Of values and rejections. */
  storedBytes: number;
}

const pendingOf = (future: Future | undefined): number => (future?.state === 'pending' ? 1 : 0);

const keysOf = (future: Future | undefined): number => (future === undefined ? 0 : 1);

/** A rejection by its units of UTF-16: all servers of a cluster must count the same, and earlier ones count so. */
const storedBytesOf = (future: Future | undefined): number =>
  (future?.value?.length ?? 0) +
  (future?.rejection === undefined ? 0 : future.rejection.code.length + future.rejection.message.length);

export class Usage {
  readonly #byProducer = new Map<string, Amounts>();

  /** A key's future is another one now. */
  replace(before: Future | undefined, after: Future | undefined): void {
    if (before !== undefined) this.#add(before, -1);
    if (after !== undefined) this.#add(after, 1);
  }

  #add(future: Future, sign: 1 | -1): void {
    const pending = pendingOf(future);
    const storedBytes = storedBytesOf(future);
    let amounts = this.#byProducer.get(future.producer);
    if (amounts === undefined) {
      amounts = { pending: 0, keys: 0, storedBytes: 0 };
      this.#byProducer.set(future.producer, amounts);
    }
    amounts.pending += sign * pending;
    amounts.keys += sign;
    amounts.storedBytes += sign * storedBytes;
    assert(
      amounts.pending >= 0 && amounts.keys >= 0 && amounts.storedBytes >= 0,
      'a principal has less than nothing',
    );
    if (amounts.keys === 0) this.#byProducer.delete(future.producer);
  }

  of(principal: string): Readonly<Amounts> {
    return this.#byProducer.get(principal) ?? { pending: 0, keys: 0, storedBytes: 0 };
  }
}

/** The quotas of one write's principal, operation by operation. */
export class QuotaCheck {
  readonly #principal: string;
  readonly #limits: ScopeLimits;
  #pending: number;
  #keys: number;
  #storedBytes: number;

  constructor(principal: string, limits: ScopeLimits, used: Readonly<Amounts>) {
    this.#principal = principal;
    this.#limits = limits;
    this.#pending = used.pending;
    this.#keys = used.keys;
    this.#storedBytes = used.storedBytes;
  }

  /**
   * Counts what the operation makes of a key's future. Why it may not be; undefined: it may. What takes nothing more
   * may always be, and so may the settling of what one has announced oneself: nobody waits for ever for a quota. So
   * nothing more may be announced by who is beyond its bytes already, or they would be no limit.
   */
  admit(operation: Operation, before: Future | undefined, after: Future | undefined): Failure | undefined {
    const pending = this.#own(after, pendingOf) - this.#own(before, pendingOf);
    const keys = this.#own(after, keysOf) - this.#own(before, keysOf);
    const storedBytes = this.#own(after, storedBytesOf) - this.#own(before, storedBytesOf);
    this.#pending += pending;
    this.#keys += keys;
    this.#storedBytes += storedBytes;
    const settlesOwn =
      before?.state === 'pending' &&
      before.producer === this.#principal &&
      (operation.kind === 'resolve' || operation.kind === 'reject');
    if (settlesOwn) return undefined;
    if (pending > 0 && this.#pending > this.#limits.pending)
      return this.#exceeded('pending futures', this.#limits.pending, 'settle or delete some of them');
    if (keys > 0 && this.#keys > this.#limits.keys)
      return this.#exceeded('keys', this.#limits.keys, 'delete some of them');
    if (pending + storedBytes > 0 && this.#storedBytes > this.#limits.storedBytes)
      return this.#exceeded(
        'stored bytes',
        this.#limits.storedBytes,
        'delete some values, or let them expire',
      );
    return undefined;
  }

  #own(future: Future | undefined, amountOf: (future: Future | undefined) => number): number {
    return future?.producer === this.#principal ? amountOf(future) : 0;
  }

  #exceeded(what: string, max: number, advice: string): Failure {
    return {
      code: 'QUOTA_EXCEEDED',
      message: `${this.#principal} may have ${max} ${what} and would have more: ${advice}`,
    };
  }
}

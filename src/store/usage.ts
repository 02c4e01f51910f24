/** What each principal has of the state, by who produced it and who pays for it: what quotas are measured against. */
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

/** A key's future, and whose quota its content counts for: its producer's where nobody is named. */
interface Charged {
  readonly future: Future | undefined;
  readonly payer: string | undefined;
}

const pendingOf = (future: Future | undefined): number => (future?.state === 'pending' ? 1 : 0);

const keysOf = (future: Future | undefined): number => (future === undefined ? 0 : 1);

/** A rejection by its units of UTF-16: all servers of a cluster must count the same, and earlier ones count so. */
const storedBytesOf = (future: Future | undefined): number =>
  (future?.value?.length ?? 0) +
  (future?.rejection === undefined ? 0 : future.rejection.code.length + future.rejection.message.length);

export class Usage {
  readonly #byPrincipal = new Map<string, Amounts>();

  /** A key's future is another one now. */
  replace(before: Charged, after: Charged): void {
    this.#charge(before, -1);
    this.#charge(after, 1);
  }

  #charge({ future, payer }: Charged, sign: 1 | -1): void {
    if (future === undefined) return;
    const storedBytes = storedBytesOf(future);
    const pending = pendingOf(future);
    if (payer === undefined) {
      this.#add(future.producer, sign, pending, 1, storedBytes);
      return;
    }
    this.#add(future.producer, sign, pending, 1, 0);
    this.#add(payer, sign, 0, 0, storedBytes);
  }

  #add(principal: string, sign: 1 | -1, pending: number, keys: number, storedBytes: number): void {
    let amounts = this.#byPrincipal.get(principal);
    if (amounts === undefined) {
      amounts = { pending: 0, keys: 0, storedBytes: 0 };
      this.#byPrincipal.set(principal, amounts);
    }
    amounts.pending += sign * pending;
    amounts.keys += sign * keys;
    amounts.storedBytes += sign * storedBytes;
    assert(
      amounts.pending >= 0 && amounts.keys >= 0 && amounts.storedBytes >= 0,
      'a principal has less than nothing',
    );
    if (amounts.keys === 0 && amounts.storedBytes === 0) this.#byPrincipal.delete(principal);
  }

  of(principal: string): Readonly<Amounts> {
    return this.#byPrincipal.get(principal) ?? { pending: 0, keys: 0, storedBytes: 0 };
  }
}

/** The quotas of one write's principal, operation by operation. */
export class QuotaCheck {
  readonly #principal: string;
  readonly #limits: ScopeLimits;
  /** As in the command that applies policies. */
  readonly #strict: boolean;
  #pending: number;
  #keys: number;
  #storedBytes: number;

  constructor(principal: string, limits: ScopeLimits, used: Readonly<Amounts>, strict: boolean) {
    this.#principal = principal;
    this.#limits = limits;
    this.#strict = strict;
    this.#pending = used.pending;
    this.#keys = used.keys;
    this.#storedBytes = used.storedBytes;
  }

  /**
   * Counts what the operation makes of a key's future. Why it may not be; undefined: it may. What takes nothing more
   * may always be, and so may the settling of what one has announced oneself: nobody waits for ever for a quota. So
   * nothing more may be announced by who is beyond its bytes already, or they would be no limit. Where quotas are not
   * strict a value may be given up for an announcement, because servers of earlier versions let it be.
   */
  admit(operation: Operation, before: Charged, after: Charged): Failure | undefined {
    const pending = this.#produced(after, pendingOf) - this.#produced(before, pendingOf);
    const keys = this.#produced(after, keysOf) - this.#produced(before, keysOf);
    const storedBytes = this.#paidFor(after) - this.#paidFor(before);
    this.#pending += pending;
    this.#keys += keys;
    this.#storedBytes += storedBytes;
    const settlesOwn =
      before.future?.state === 'pending' &&
      before.future.producer === this.#principal &&
      (operation.kind === 'resolve' || operation.kind === 'reject');
    if (settlesOwn) return undefined;
    if (pending > 0 && this.#pending > this.#limits.pending)
      return this.#exceeded('pending futures', this.#limits.pending, 'settle or delete some of them');
    if (keys > 0 && this.#keys > this.#limits.keys)
      return this.#exceeded('keys', this.#limits.keys, 'delete some of them');
    const takesMore = this.#strict ? pending > 0 || storedBytes > 0 : pending + storedBytes > 0;
    if (takesMore && this.#storedBytes > this.#limits.storedBytes)
      return this.#exceeded(
        'stored bytes',
        this.#limits.storedBytes,
        'delete some values, or let them expire',
      );
    return undefined;
  }

  #produced({ future }: Charged, amountOf: (future: Future | undefined) => number): number {
    return future?.producer === this.#principal ? amountOf(future) : 0;
  }

  #paidFor({ future, payer }: Charged): number {
    return (payer ?? future?.producer) === this.#principal ? storedBytesOf(future) : 0;
  }

  #exceeded(what: string, max: number, advice: string): Failure {
    return {
      code: 'QUOTA_EXCEEDED',
      message: `${this.#principal} may have ${max} ${what} and would have more: ${advice}`,
    };
  }
}

/**
 * What is to be done and was not given out yet, and which write a message has to wait for.
 *
 * A message that depends on the next write leaves with it (`afterDurable`); one that depends on a write under way
 * is held here until that write is on disk; anything else may leave at once.
 */

import { violated } from './assert.ts';
import type {
  Dropped,
  Entry,
  HardState,
  LogIndex,
  MemberId,
  Message,
  Persist,
  Ready,
  SnapshotPoint,
  SoftState,
  Term,
  Token,
} from './types.ts';

interface Held {
  readonly sequence: number;
  readonly message: Message;
}

interface Write {
  readonly truncateFrom: LogIndex | undefined;
  readonly entries: readonly Entry[];
  readonly snapshot: SnapshotPoint | undefined;
}

/** The later answer says all that the earlier one did. */
const supersedes = (earlier: Message | undefined, later: Message): boolean =>
  earlier?.kind === 'append_response' &&
  later.kind === 'append_response' &&
  earlier.to === later.to &&
  earlier.term === later.term &&
  earlier.outcome.accepted &&
  later.outcome.accepted &&
  earlier.outcome.matchIndex <= later.outcome.matchIndex;

export class Outbox {
  #send: Message[] = [];
  #afterDurable: Message[] = [];
  #held: Held[] = [];
  #reads: { readonly token: Token; readonly index: LogIndex }[] = [];
  #dropped: Dropped[] = [];
  #snapshots: { readonly to: MemberId; readonly term: Term }[] = [];
  #sequence = 0;
  #persisted = 0;
  /** As last given out, and with which write its term and vote went. */
  #hardState: HardState;
  #hardStateSequence = 0;
  #soft: SoftState;

  constructor(hardState: HardState, soft: SoftState) {
    this.#hardState = hardState;
    this.#soft = soft;
  }

  get nextSequence(): number {
    return this.#sequence + 1;
  }

  get sequence(): number {
    return this.#sequence;
  }

  get persistedSequence(): number {
    return this.#persisted;
  }

  /** The write that makes this term and vote durable; 0: they are. */
  writeOfHardState(term: Term, vote: MemberId | undefined): number {
    if (term !== this.#hardState.term || vote !== this.#hardState.vote) return this.nextSequence;
    return this.#hardStateSequence > this.#persisted ? this.#hardStateSequence : 0;
  }

  /** `sequence`: the write that must be on disk before it leaves; 0: none. */
  post(message: Message, sequence: number): void {
    if (sequence > this.nextSequence)
      violated(`a message waits for write ${sequence}, the next is ${this.nextSequence}`);
    if (sequence === this.nextSequence) {
      if (supersedes(this.#afterDurable.at(-1), message)) this.#afterDurable.pop();
      this.#afterDurable.push(message);
    } else if (sequence > this.#persisted) {
      const newest = this.#held.at(-1);
      if (newest?.sequence === sequence && supersedes(newest.message, message)) this.#held.pop();
      this.#held.push({ sequence, message });
    } else {
      if (supersedes(this.#send.at(-1), message)) this.#send.pop();
      this.#send.push(message);
    }
  }

  /** The entries from `index` on will not be written after all: nobody may be told that they are. */
  withdrawAppendAnswers(index: LogIndex): void {
    this.#afterDurable = this.#afterDurable.filter(
      (message) =>
        message.kind !== 'append_response' || !message.outcome.accepted || message.outcome.matchIndex < index,
    );
  }

  read(token: Token, index: LogIndex): void {
    this.#reads.push({ token, index });
  }

  drop(kind: Dropped['kind'], token: Token, reason: Dropped['reason']): void {
    this.#dropped.push({ kind, token, reason });
  }

  streamSnapshot(to: MemberId, term: Term): void {
    this.#snapshots.push({ to, term });
  }

  /** False: an old answer. */
  persisted(sequence: number): boolean {
    if (sequence > this.#sequence) {
      violated(
        `write ${sequence} was reported as done, but ${this.#sequence} is the last that was given out`,
      );
    }
    if (sequence <= this.#persisted) return false;
    this.#persisted = sequence;
    if (this.#held.length === 0) return true;
    const held = this.#held;
    this.#held = [];
    for (const item of held) {
      if (item.sequence <= sequence) this.#send.push(item.message);
      else this.#held.push(item);
    }
    return true;
  }

  /** Of the hard state; or something waits for a write, which is a mistake where there is nothing else to write. */
  hasToWrite(term: Term, vote: MemberId | undefined, commit: LogIndex): boolean {
    const handed = this.#hardState;
    return (
      term !== handed.term ||
      vote !== handed.vote ||
      commit !== handed.commit ||
      this.#afterDurable.length > 0
    );
  }

  /** undefined: there is nothing to write. */
  takePersist(hardState: HardState, write: Write): Persist | undefined {
    const handed = this.#hardState;
    const voteMoved = hardState.term !== handed.term || hardState.vote !== handed.vote;
    const hardStateMoved = voteMoved || hardState.commit !== handed.commit;
    const mustSync =
      voteMoved ||
      write.entries.length > 0 ||
      write.truncateFrom !== undefined ||
      write.snapshot !== undefined;
    if (!mustSync && !hardStateMoved) {
      if (this.#afterDurable.length > 0) {
        violated(`${this.#afterDurable.length} messages wait for a write, but there is nothing to write`);
      }
      return undefined;
    }
    this.#sequence += 1;
    if (hardStateMoved) this.#hardState = hardState;
    if (voteMoved) this.#hardStateSequence = this.#sequence;
    const afterDurable = this.#afterDurable;
    this.#afterDurable = [];
    return {
      sequence: this.#sequence,
      ...(hardStateMoved ? { hardState } : {}),
      ...(write.truncateFrom === undefined ? {} : { truncateFrom: write.truncateFrom }),
      entries: write.entries,
      ...(write.snapshot === undefined ? {} : { snapshot: write.snapshot }),
      mustSync,
      afterDurable,
    };
  }

  take(
    persist: Persist | undefined,
    toApply: readonly Entry[],
    { role, term, leader }: SoftState,
  ): Ready | undefined {
    const before = this.#soft;
    const softMoved = before.role !== role || before.term !== term || before.leader !== leader;
    const nothing =
      persist === undefined &&
      toApply.length === 0 &&
      !softMoved &&
      this.#send.length === 0 &&
      this.#reads.length === 0 &&
      this.#dropped.length === 0 &&
      this.#snapshots.length === 0;
    if (nothing) return undefined;
    if (softMoved) this.#soft = { role, term, leader };
    const ready: Ready = {
      send: this.#send,
      ...(persist === undefined ? {} : { persist }),
      ...(toApply.length === 0 ? {} : { apply: { entries: toApply } }),
      reads: this.#reads,
      dropped: this.#dropped,
      snapshots: this.#snapshots,
      ...(softMoved ? { soft: this.#soft } : {}),
    };
    this.#send = [];
    this.#reads = [];
    this.#dropped = [];
    this.#snapshots = [];
    return ready;
  }
}

/**
 * What a leader knows of one peer's log.
 *
 * `probe`: where the logs agree is not known: one append at a time. `replicate`: it is known: appends are sent
 * ahead, as far as the window allows. `snapshot`: the peer needs entries that are gone; nothing is sent until the
 * snapshot was streamed. Invariant: match < next, in every state.
 */

import { violated } from './assert.ts';
import type { Inflights } from './inflights.ts';
import { asLogIndex } from './types.ts';
import type { LogIndex, MemberId, PeerProgress } from './types.ts';

export class Progress {
  readonly id: MemberId;
  readonly inflights: Inflights;
  #state: PeerProgress['state'] = 'probe';
  /** Durable at the peer, and the same as here. */
  #match: LogIndex;
  #next: LogIndex;
  /** Heard from since the last check of the quorum. */
  recentlyActive = false;
  /** The greatest commit index that was sent to it and that it could take. */
  commitSent: LogIndex = asLogIndex(0);
  /** The greatest read round that it has answered. */
  readRound = 0;
  /** `probe`: the one append is under way. */
  probeSent = false;
  /** A heartbeat of the timer is unanswered: its answer may wake one append. Reads' heartbeats wake none. */
  #wakeable = false;
  /** `replicate`: send one append even if there is nothing new, or no room, to find out whether one was lost. */
  nudged = false;

  constructor(id: MemberId, next: LogIndex, inflights: Inflights) {
    this.id = id;
    this.inflights = inflights;
    this.#match = asLogIndex(0);
    this.#next = next;
    this.#checkOrder();
  }

  get state(): PeerProgress['state'] {
    return this.#state;
  }

  get match(): LogIndex {
    return this.#match;
  }

  get next(): LogIndex {
    return this.#next;
  }

  /** The peer said that it has everything up to `index`. False: known already. */
  acknowledge(index: LogIndex): boolean {
    if (index <= this.#match) return false;
    this.#match = index;
    if (this.#next <= index) this.#next = asLogIndex(index + 1);
    this.#checkOrder();
    return true;
  }

  /** An append up to `lastIndex` was sent ahead. */
  sentAhead(lastIndex: LogIndex, bytes: number): void {
    if (this.#state !== 'replicate')
      violated(`entries were sent ahead to ${this.id} in state ${this.#state}`);
    this.inflights.add(lastIndex, bytes);
    this.#next = asLogIndex(lastIndex + 1);
    this.#checkOrder();
  }

  /**
   * The peer's log did not match at `rejected`; both logs may agree at `agreement` at the latest. False: an old
   * answer, which must not move anything (a delayed one would put next at or below match).
   */
  reject(rejected: LogIndex, agreement: LogIndex): boolean {
    switch (this.#state) {
      case 'snapshot':
        return false;
      case 'replicate':
        if (rejected <= this.#match) return false;
        this.becomeProbe(asLogIndex(this.#match + 1));
        return true;
      case 'probe':
        if (rejected !== this.#next - 1) return false;
        this.becomeProbe(asLogIndex(Math.max(Math.min(rejected, agreement + 1), this.#match + 1)));
        return true;
      default:
        return this.#state satisfies never;
    }
  }

  becomeProbe(next: LogIndex): void {
    this.#become('probe');
    this.#next = next;
    this.#checkOrder();
  }

  becomeReplicate(): void {
    this.#become('replicate');
    this.#next = asLogIndex(this.#match + 1);
  }

  becomeSnapshot(): void {
    this.#become('snapshot');
  }

  heartbeatSent(): void {
    this.#wakeable = true;
  }

  /** Wakes at most one append for each heartbeat of the timer, so that a paused peer is not flooded. */
  heartbeatAnswered(lastIndex: LogIndex): void {
    if (!this.#wakeable) return;
    this.#wakeable = false;
    if (this.#state === 'probe') this.probeSent = false;
    if (this.#state === 'replicate' && this.#match < lastIndex) this.nudged = true;
  }

  describe(): PeerProgress {
    return {
      id: this.id,
      state: this.#state,
      match: this.#match,
      next: this.#next,
      recentlyActive: this.recentlyActive,
      inflightMessages: this.inflights.count,
      inflightBytes: this.inflights.bytes,
    };
  }

  #become(state: PeerProgress['state']): void {
    this.#state = state;
    this.probeSent = false;
    this.nudged = false;
    this.commitSent = asLogIndex(0);
    this.inflights.reset();
  }

  #checkOrder(): void {
    if (this.#next <= this.#match) {
      violated(
        `next ${this.#next} of peer ${this.id} is not beyond match ${this.#match}: an old answer was believed`,
      );
    }
  }
}

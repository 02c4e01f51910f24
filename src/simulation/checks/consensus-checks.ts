/**
 * Raft's promises over all servers (Raft figure 3), looked at from outside after every step. All of it is
 * incremental: a step costs as much as it brought new entries.
 *
 * Log matching needs no comparison of logs: an entry is (index, term), and wherever it is written it must have the
 * same content and the same predecessor as where it was written first. By induction two logs that share an entry
 * share all before it.
 */
import { crc32 } from 'node:zlib';
import { checkInvariants } from '../../raft/index.ts';
import type { Entry, InvariantView, Message } from '../../raft/index.ts';
import type { Recovered, WriteBatch } from '../../storage/index.ts';
import { violated } from './violation.ts';

interface Known {
  readonly checksum: number;
  readonly previousTerm: number;
  readonly firstSeenAt: number;
}

interface Committed {
  readonly term: number;
  readonly checksum: number;
  readonly by: number;
}

/** What one member has given to its disk, and what it has promised to others about it. */
class MemberLog {
  baseIndex = 0;
  baseTerm = 0;
  /** Terms and checksums of the entries from base + 1 on. */
  terms: number[] = [];
  checksums: number[] = [];
  /** Compared with what is committed, up to here. */
  comparedTo = 0;
  /** Told to others: what a restart must find again. */
  toldTerm = 0;
  acknowledged = 0;
  previous: InvariantView | undefined;

  get last(): number {
    return this.baseIndex + this.terms.length;
  }

  termAt(index: number): number | undefined {
    return index === this.baseIndex ? this.baseTerm : this.terms[index - this.baseIndex - 1];
  }

  checksumAt(index: number): number | undefined {
    return this.checksums[index - this.baseIndex - 1];
  }

  truncateFrom(index: number): void {
    const keep = Math.max(0, index - this.baseIndex - 1);
    this.terms.length = Math.min(this.terms.length, keep);
    this.checksums.length = Math.min(this.checksums.length, keep);
    this.acknowledged = Math.min(this.acknowledged, index - 1);
  }

  beginAt(index: number, term: number): void {
    const gone = index - this.baseIndex;
    this.terms.splice(0, gone);
    this.checksums.splice(0, gone);
    this.baseIndex = index;
    this.baseTerm = term;
  }
}

/** Terms and indices are far below 2^26 in any run. */
const place = (index: number, term: number): number => term * 2 ** 26 + index;

export class ConsensusChecks {
  readonly #members = new Map<number, MemberLog>();
  readonly #leaders = new Map<number, number>();
  readonly #known = new Map<number, Known>();
  readonly #committed = new Map<number, Committed>();
  /** Ascending: in which term the log was committed up to which index. */
  readonly #commits: { readonly term: number; index: number }[] = [];
  readonly #votes = new Map<string, number>();

  /** The highest index that anyone knows to be committed. */
  get committed(): number {
    return this.#commits.at(-1)?.index ?? 0;
  }

  /**
   * A server has read its disk. `lossIsExpected`: its disk was damaged on purpose, so that what it promised before
   * may be gone (and it must not take part as if nothing had happened, which the other checks see).
   */
  started(member: number, recovered: Recovered, lossIsExpected = false): void {
    const before = this.#members.get(member);
    const log = new MemberLog();
    this.#members.set(member, log);
    log.baseIndex = recovered.snapshot?.index ?? 0;
    log.baseTerm = recovered.snapshot?.term ?? 0;
    log.comparedTo = log.baseIndex;
    for (const entry of recovered.entries) this.#append(member, log, entry);
    if (before === undefined || lossIsExpected) return;
    const term = recovered.hardState?.term ?? 0;
    if (term < before.toldTerm) {
      violated(
        'durable terms',
        `member ${member} restarted in term ${term}, but it had sent messages of term ${before.toldTerm}`,
      );
    }
    if (log.last < before.acknowledged) {
      violated(
        'durable entries',
        `member ${member} restarted with a log up to ${log.last}, but had acknowledged ${before.acknowledged}`,
      );
    }
    log.toldTerm = before.toldTerm;
    log.acknowledged = before.acknowledged;
  }

  /** The server gives this to its disk. Called when the write begins, in the order of writes. */
  wrote(member: number, batch: WriteBatch): void {
    const log = this.#log(member);
    if (batch.activate !== undefined) {
      const { index, term } = batch.activate;
      this.#checkSnapshot(member, index, term);
      log.terms = [];
      log.checksums = [];
      log.baseIndex = index;
      log.baseTerm = term;
      log.comparedTo = Math.max(log.comparedTo, index);
    }
    if (batch.truncateFrom !== undefined) {
      if (batch.truncateFrom <= log.comparedTo) {
        violated(
          'state machine safety',
          `member ${member} cuts its log off from ${batch.truncateFrom} on, but knew ${log.comparedTo} as committed`,
        );
      }
      log.truncateFrom(batch.truncateFrom);
    }
    for (const entry of batch.entries) this.#append(member, log, entry);
    if (batch.compactTo !== undefined) log.beginAt(batch.compactTo.index, batch.compactTo.term);
  }

  /** A message leaves this server: it must never be taken back by a restart. */
  sent(message: Message): void {
    const log = this.#log(message.from);
    // A pre-vote asks what would be; its own term is the sender's present one.
    if (message.term > log.toldTerm) log.toldTerm = message.term;
    if (message.kind === 'vote_response' && message.granted) {
      const key = `${message.from}/${message.term}`;
      const voted = this.#votes.get(key);
      if (voted !== undefined && voted !== message.to) {
        violated(
          'one vote a term',
          `member ${message.from} voted for ${voted} and for ${message.to} in term ${message.term}`,
        );
      }
      this.#votes.set(key, message.to);
    }
    if (message.kind === 'append_response' && message.outcome.accepted) {
      log.acknowledged = Math.max(log.acknowledged, message.outcome.matchIndex);
    }
  }

  /** After every step of a server. */
  observe(view: InvariantView): void {
    const log = this.#log(view.id);
    checkInvariants(log.previous, view);
    const before = log.previous;
    log.previous = view;
    if (view.role === 'leader' && (before?.role !== 'leader' || before.term !== view.term)) {
      this.#elected(view, log);
    }
    const to = Math.min(view.commit, log.last);
    if (to > log.comparedTo) this.#compareCommitted(view, log, to);
  }

  /** What the process had in memory is gone; its disk stays. */
  crashed(member: number): void {
    const log = this.#members.get(member);
    if (log !== undefined) log.previous = undefined;
  }

  /** The member has gone for good, or gets an empty disk. */
  forget(member: number): void {
    this.#members.delete(member);
  }

  #log(member: number): MemberLog {
    let log = this.#members.get(member);
    if (log === undefined) this.#members.set(member, (log = new MemberLog()));
    return log;
  }

  #append(member: number, log: MemberLog, entry: Entry): void {
    const { index, term, payload } = entry;
    if (index !== log.last + 1) {
      violated('log matching', `member ${member} wrote entry ${index} behind entry ${log.last}`);
    }
    const checksum = crc32(payload);
    const previousTerm = log.termAt(index - 1) ?? 0;
    const key = place(index, term);
    const known = this.#known.get(key);
    if (known === undefined) this.#known.set(key, { checksum, previousTerm, firstSeenAt: member });
    else if (known.checksum !== checksum || known.previousTerm !== previousTerm) {
      violated(
        'log matching',
        `entry ${index} of term ${term} is another one at member ${member} than at ${known.firstSeenAt}`,
      );
    }
    log.terms.push(term);
    log.checksums.push(checksum);
  }

  #checkSnapshot(member: number, index: number, term: number): void {
    const committed = this.#committed.get(index);
    if (committed === undefined) {
      violated(
        'state machine safety',
        `member ${member} installs a snapshot at ${index}: nobody committed it`,
      );
    } else if (committed.term !== term) {
      violated(
        'state machine safety',
        `member ${member} installs a snapshot at ${index} of term ${term}, committed was term ${committed.term}`,
      );
    }
  }

  #elected(view: InvariantView, log: MemberLog): void {
    const other = this.#leaders.get(view.term);
    if (other !== undefined && other !== view.id) {
      violated('election safety', `members ${other} and ${view.id} both lead term ${view.term}`);
    }
    this.#leaders.set(view.term, view.id);
    // Entries committed in earlier terms must be there (Raft §5.4); the last of them stands for all before it.
    const last = this.#commits.findLast((commit) => commit.term < view.term);
    if (last === undefined) return;
    const expected = this.#committed.get(last.index);
    const found = last.index <= log.last ? log.termAt(last.index) : undefined;
    if (view.lastIndex < last.index || (found !== undefined && found !== expected?.term)) {
      violated(
        'leader completeness',
        `member ${view.id} leads term ${view.term} without entry ${last.index} of term ${expected?.term}, ` +
          `which was committed in term ${last.term}; its log ends at ${view.lastIndex}`,
      );
    }
  }

  #compareCommitted(view: InvariantView, log: MemberLog, to: number): void {
    for (let index = Math.max(log.comparedTo, log.baseIndex) + 1; index <= to; index += 1) {
      const term = log.termAt(index) ?? 0;
      const checksum = log.checksumAt(index) ?? 0;
      const committed = this.#committed.get(index);
      if (committed === undefined) this.#committed.set(index, { term, checksum, by: view.id });
      else if (committed.term !== term || committed.checksum !== checksum) {
        violated(
          'state machine safety',
          `entry ${index} was committed with term ${committed.term} at member ${committed.by}, ` +
            `and with term ${term} at member ${view.id}`,
        );
      }
    }
    log.comparedTo = to;
    const last = this.#commits.at(-1);
    if (last !== undefined && last.index >= to) return;
    if (last !== undefined && last.term === view.term) last.index = to;
    else if (last === undefined || last.term < view.term) this.#commits.push({ term: view.term, index: to });
  }
}

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
import type { Configuration, Entry, InvariantView, Message } from '../../raft/index.ts';
import type { Recovered, WriteBatch } from '../../storage/index.ts';
import { ConfigurationChecks } from './configuration-checks.ts';
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

interface Durable {
  readonly term: number;
  readonly vote: number | undefined;
  /** The last entry of the log. */
  readonly last: number;
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
  acknowledgedInTerm = 0;
  /** As given to the disk, and as it is known to be there. */
  handed: Durable = { term: 0, vote: undefined, last: 0 };
  durable: Durable = { term: 0, vote: undefined, last: 0 };
  /** The last step after which it heard no leader. */
  leaderlessStep = 0;
  /** Since it leads, and not looked at yet; 0: nothing. */
  committedByItself = 0;
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

/** All servers of a process hold the same bytes of an entry, which never change. */
const checksums = new WeakMap<Uint8Array, number>();

const checksumOf = (payload: Uint8Array): number => {
  let checksum = checksums.get(payload);
  if (checksum === undefined) checksums.set(payload, (checksum = crc32(payload)));
  return checksum;
};

/** Terms and indices are far below 2^26 in any run. */
const place = (index: number, term: number): number => term * 2 ** 26 + index;

export class ConsensusChecks {
  /** By leader: which configuration it committed by last. */
  readonly #configurations = new Map<number, string>();
  readonly #history = new ConfigurationChecks();
  /**
   * Whose disk has lost what it had, with the last entry that each had acknowledged before. That may have been counted,
   * though it is gone; nothing that such a member says since may.
   */
  readonly #lost = new Map<number, number>();
  readonly #members = new Map<number, MemberLog>();
  readonly #leaders = new Map<number, number>();
  /** By term. */
  readonly #appliedWhenElected = new Map<number, number>();
  readonly #known = new Map<number, Known>();
  readonly #committed = new Map<number, Committed>();
  /** Ascending: in which term the log was committed up to which index. */
  readonly #commits: { readonly term: number; index: number }[] = [];
  readonly #votes = new Map<string, number>();
  /** Of these, given by members whose disk had lost something. */
  readonly #lostVotes = new Set<string>();
  /** By campaign: who would vote for it. */
  readonly #preVotes = new Map<string, Set<number>>();
  /** By campaign: before which step it was asked for first. */
  readonly #campaigns = new Map<string, number>();
  #step = 0;
  /** Also where the entry is not on the disk of the one who knows yet. */
  #furthestCommit = 0;
  /** By asker and context: what was committed when a follower asked the leader how far to read. */
  readonly #readsFrom = new Map<string, number>();

  /** The last configuration that anyone knows to be committed; undefined: nobody has begun a cluster. */
  get configuration(): Configuration | undefined {
    return this.#history.last;
  }

  hasLeft(member: number): boolean {
    return this.#history.hasLeft(member);
  }

  /** Nobody needs a member that has left any more, be it to win an election: so it may be told. */
  mayBeForgotten(member: number): boolean {
    return this.#history.mayBeForgotten(member, this.#furthestCommit);
  }

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
    if (lossIsExpected && !this.#lost.has(member)) this.#lost.set(member, before?.acknowledged ?? 0);
    const log = new MemberLog();
    this.#members.set(member, log);
    log.baseIndex = recovered.snapshot?.index ?? 0;
    log.baseTerm = recovered.snapshot?.term ?? 0;
    log.comparedTo = log.baseIndex;
    for (const entry of recovered.entries) this.#append(member, log, entry);
    const { term: durableTerm = 0, vote } = recovered.hardState ?? {};
    log.durable = { term: durableTerm, vote, last: log.last };
    log.handed = log.durable;
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
    log.acknowledgedInTerm = before.acknowledgedInTerm;
  }

  /** The server gives this to its disk. Called when the write begins, in the order of writes. */
  wrote(member: number, batch: WriteBatch): void {
    const log = this.#log(member);
    if (batch.activate !== undefined) {
      const { index, term } = batch.activate;
      this.#checkSnapshot(member, index, term);
      // All that came behind it is cut off with what it takes the place of.
      this.#checkTruncation(member, log, batch, index + 1);
      log.acknowledged = Math.min(log.acknowledged, index);
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
      this.#checkTruncation(member, log, batch, batch.truncateFrom);
      log.truncateFrom(batch.truncateFrom);
      // What takes its place is not there before the next answer.
      const last = Math.min(log.durable.last, batch.truncateFrom - 1);
      log.durable = { ...log.durable, last };
    }
    for (const entry of batch.entries) this.#append(member, log, entry);
    if (batch.compactTo !== undefined) {
      const { index, term, configuration } = batch.compactTo;
      if (index === 0) this.#history.bootstrapped(configuration);
      log.beginAt(index, term);
    }
    const { term, vote } = batch.hardState ?? log.handed;
    log.handed = { term, vote, last: log.last };
  }

  /** The disk has answered the write that was begun last; with it all before are there, if it was synced. */
  written(member: number, sync: boolean): void {
    const log = this.#log(member);
    if (sync) log.durable = log.handed;
  }

  /** A message leaves this server: it must never be taken back by a restart. */
  sent(message: Message): void {
    const log = this.#log(message.from);
    // A pre-vote asks what would be; its own term is the sender's present one.
    if (message.term > log.toldTerm) log.toldTerm = message.term;
    this.#checkDurable(message, log.durable);
    switch (message.kind) {
      case 'pre_vote_response':
        if (!message.granted) break;
        this.#checkLoyalty(message.from, message.to, message.campaignTerm, log);
        this.#grantedPreVote(message.from, message.to, message.campaignTerm);
        break;
      case 'pre_vote_request': {
        const key = `${message.from}/${message.campaignTerm}`;
        if (!this.#campaigns.has(key)) this.#campaigns.set(key, this.#step);
        break;
      }
      case 'vote_request':
        if (!message.transfer && !this.#preVotes.has(`${message.from}/${message.term}`)) {
          violated(
            'pre-vote',
            `member ${message.from} campaigns in term ${message.term} before anybody would vote for it`,
          );
        }
        break;
      case 'read_request':
        this.#readsFrom.set(`${message.from}/${message.context}`, this.committed);
        break;
      case 'read_response':
        if (message.index !== undefined)
          this.#checkRead(message.from, message.to, message.context, message.index);
        break;
      case 'vote_response':
        if (message.granted) this.#voted(message.from, message.to, message.term);
        break;
      case 'append_response':
        if (!message.outcome.accepted) break;
        log.acknowledged = Math.max(log.acknowledged, this.#heldOf(message.outcome.matchIndex, message, log));
        log.acknowledgedInTerm = Math.max(log.acknowledgedInTerm, message.term);
        break;
      default:
    }
  }

  /** After every step of a server. */
  observe(view: InvariantView): void {
    const log = this.#log(view.id);
    checkInvariants(log.previous, view);
    const before = log.previous;
    log.previous = view;
    this.#step += 1;
    this.#furthestCommit = Math.max(this.#furthestCommit, view.commit);
    // What it takes for durable it acknowledges, counts and applies.
    if (view.durable > log.durable.last) {
      violated(
        'durable entries',
        `member ${view.id} takes its log for durable up to ${view.durable}, its disk has ${log.durable.last}`,
      );
    }
    if (!view.hearsLeader) log.leaderlessStep = this.#step;
    if (view.role === 'leader' && (before?.role !== 'leader' || before.term !== view.term)) {
      this.#elected(view, log);
    }
    this.#checkCommitRule(before, view, log);
    this.#checkCopies(before, view);
    // What is not durable may still wait to be given to the disk, behind a truncation that waits with it.
    const to = Math.min(view.commit, view.durable, log.last);
    if (to > log.comparedTo) this.#compareCommitted(view, log, to);
    if (before?.applied !== view.applied || before.configuration !== view.configuration)
      this.#history.counts(view);
  }

  /** What the process had in memory is gone; its disk stays. */
  crashed(member: number): void {
    const log = this.#members.get(member);
    if (log === undefined) return;
    log.previous = undefined;
    log.leaderlessStep = this.#step;
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

  /**
   * How much of what it acknowledges a member still has to have. A write may hold the entries of one term and, behind
   * them, what a later leader has put in their place: those had been there, and are not any more, when both are told.
   */
  #heldOf(matchIndex: number, { term }: Message, { durable }: MemberLog): number {
    return term < durable.term ? Math.min(matchIndex, durable.last) : matchIndex;
  }

  /** No message leaves before what it says of its sender is on that one's disk (Raft §5). */
  #checkDurable(message: Message, { term, vote, last }: Durable): void {
    const what = `member ${message.from} sent a ${message.kind} of term ${message.term}`;
    if (message.term > term) violated('durable terms', `${what}, its disk has term ${term}`);
    // On a disk of a later term nobody can vote in this one again.
    const sameTerm = message.term === term;
    if (sameTerm && message.kind === 'vote_response' && message.granted && vote !== message.to) {
      violated('durable votes', `${what} to ${message.to}, its disk has a vote for ${vote ?? 'nobody'}`);
    }
    if (
      sameTerm &&
      message.kind === 'append_response' &&
      message.outcome.accepted &&
      message.outcome.matchIndex > last
    ) {
      violated('durable entries', `${what} up to ${message.outcome.matchIndex}, its disk has ${last}`);
    }
  }

  /** A read sees all that anybody knew as committed when it was asked for (Raft §8). */
  #checkRead(leader: number, asker: number, context: number, index: number): void {
    const committed = this.#readsFrom.get(`${asker}/${context}`);
    if (committed === undefined || index >= committed) return;
    violated(
      'read index',
      `member ${leader} lets ${asker} read as of entry ${index}; ${committed} was committed when it asked`,
    );
  }

  /**
   * Whoever hears a leader supports no campaign against it (Raft §9.6). The answer may have waited for a disk: only
   * who has heard a leader since before the question is disloyal for sure.
   */
  #checkLoyalty(from: number, to: number, campaignTerm: number, log: MemberLog): void {
    const view = log.previous;
    const askedStep = this.#campaigns.get(`${to}/${campaignTerm}`);
    if (view === undefined || askedStep === undefined || view.leader === to) return;
    if (!view.hearsLeader || log.leaderlessStep >= askedStep) return;
    violated(
      'loyalty',
      `member ${from} would vote for ${to}, though it hears leader ${view.leader} of term ${view.term}`,
    );
  }

  #grantedPreVote(from: number, to: number, term: number): void {
    const key = `${to}/${term}`;
    const granted = this.#preVotes.get(key);
    if (granted === undefined) this.#preVotes.set(key, new Set([from]));
    else granted.add(from);
  }

  #voted(from: number, to: number, term: number): void {
    const key = `${from}/${term}`;
    const before = this.#votes.get(key);
    if (before !== undefined && before !== to) {
      violated('one vote a term', `member ${from} voted for ${before} and for ${to} in term ${term}`);
    }
    this.#votes.set(key, to);
    if (this.#lost.has(from)) this.#lostVotes.add(key);
  }

  /** What was acknowledged to a leader may be cut off by a later leader only. */
  #checkTruncation(member: number, log: MemberLog, batch: WriteBatch, from: number): void {
    const term = Math.max(batch.hardState?.term ?? 0, log.previous?.term ?? 0);
    if (from > log.acknowledged || term > log.acknowledgedInTerm || term === 0) return;
    violated(
      'acknowledged entries',
      `member ${member} cuts its log off from ${from} on in term ${term}, in which it acknowledged ${log.acknowledged}`,
    );
  }

  /** A leader commits by counting copies of an entry of its own term, and older ones with it (Raft §5.4.2). */
  #checkCommitRule(before: InvariantView | undefined, view: InvariantView, log: MemberLog): void {
    const leads = view.role === 'leader' && before?.role === 'leader' && before.term === view.term;
    if (!leads) log.committedByItself = 0;
    else if (view.commit > before.commit) log.committedByItself = view.commit;
    const index = log.committedByItself;
    // What is not durable may still wait to be given to the disk, and another entry be there.
    if (index === 0 || index > view.durable || index > log.last) return;
    log.committedByItself = 0;
    const term = log.termAt(index);
    if (term !== undefined && term !== view.term) {
      violated(
        'commit rule',
        `the leader of term ${view.term} committed entry ${index} of term ${term} by itself`,
      );
    }
  }

  /** What a leader takes for committed is on the disks of a majority. */
  #checkCopies(before: InvariantView | undefined, view: InvariantView): void {
    if (view.role !== 'leader' || before?.role !== 'leader' || before.term !== view.term) return;
    if (view.commit <= before.commit) return;
    const { voters, votersOutgoing } = view.configuration;
    const text = `${voters.join()}/${votersOutgoing.join()}`;
    const counted = this.#configurations.get(view.id);
    this.#configurations.set(view.id, text);
    // In the step that switches it, it is not known by which of the two it counted.
    if (counted !== undefined && counted !== text) return;
    for (const half of [voters, votersOutgoing]) {
      const copies = half.filter((id) => this.#hasCopy(id, view.commit, view.term)).length;
      if (half.length === 0 || 2 * copies > half.length) continue;
      violated(
        'commit quorum',
        `member ${view.id} committed entry ${view.commit} of term ${view.term} with ${copies} copies on the disks of ${half.join(', ')}`,
      );
    }
  }

  #hasCopy(member: number, index: number, term: number): boolean {
    const lost = this.#lost.get(member);
    if (lost !== undefined) return index <= lost;
    const log = this.#members.get(member);
    if (log === undefined || log.durable.last < index) return false;
    return index <= log.baseIndex || log.termAt(index) === term;
  }

  #append(member: number, log: MemberLog, entry: Entry): void {
    const { index, term, payload, kind } = entry;
    if (index !== log.last + 1) {
      violated('log matching', `member ${member} wrote entry ${index} behind entry ${log.last}`);
    }
    const checksum = checksumOf(payload);
    const previousTerm = log.termAt(index - 1) ?? 0;
    const key = place(index, term);
    const known = this.#known.get(key);
    if (known === undefined) {
      this.#known.set(key, { checksum, previousTerm, firstSeenAt: member });
      if (kind === 'configuration') this.#history.written(key, payload);
      // The first one of a term is written by a leader that may have applied the configurations before it, or not yet.
      const upTo = previousTerm === term ? index : (this.#appliedWhenElected.get(term) ?? index);
      if (kind === 'empty') this.#history.writtenEmpty(index, upTo);
    } else if (known.checksum !== checksum || known.previousTerm !== previousTerm) {
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
    if (other === undefined) this.#appliedWhenElected.set(view.term, view.applied);
    this.#checkVotes(view);
    // Entries committed in earlier terms must be there (Raft §5.4); the last of them stands for all before it.
    const last = this.#commits.findLast((commit) => commit.term < view.term);
    if (last === undefined) return;
    const expected = this.#committed.get(last.index);
    const found = last.index <= Math.min(log.last, view.durable) ? log.termAt(last.index) : undefined;
    if (view.lastIndex < last.index || (found !== undefined && found !== expected?.term)) {
      violated(
        'leader completeness',
        `member ${view.id} leads term ${view.term} without entry ${last.index} of term ${expected?.term}, ` +
          `which was committed in term ${last.term}; its log ends at ${view.lastIndex}`,
      );
    }
  }

  /** A leader has the votes of a majority, of both halves of a joint configuration (Raft §5.2, §4.3). */
  #checkVotes({ id, term, configuration }: InvariantView): void {
    const hasVoted = (voter: number): boolean => {
      if (voter === id) return !this.#lost.has(id);
      const key = `${voter}/${term}`;
      return this.#votes.get(key) === id && !this.#lostVotes.has(key);
    };
    for (const half of [configuration.voters, configuration.votersOutgoing]) {
      const votes = half.filter(hasVoted).length;
      if (half.length === 0 || 2 * votes > half.length) continue;
      violated('election quorum', `member ${id} leads term ${term} by ${votes} votes of ${half.join(', ')}`);
    }
  }

  #compareCommitted(view: InvariantView, log: MemberLog, to: number): void {
    for (let index = Math.max(log.comparedTo, log.baseIndex) + 1; index <= to; index += 1) {
      const term = log.termAt(index) ?? 0;
      const checksum = log.checksumAt(index) ?? 0;
      const committed = this.#committed.get(index);
      if (committed === undefined) {
        this.#committed.set(index, { term, checksum, by: view.id });
        this.#history.committed(index, place(index, term));
      } else if (committed.term !== term || committed.checksum !== checksum) {
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

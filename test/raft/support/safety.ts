import type { Entry, MemberId, Message, Persist, RaftStatus, Term } from '../../../src/raft/index.ts';
import { describeMessage } from '../../../src/raft/index.ts';
import type { DiskImage, ScriptedDisk } from './disk.ts';

export class SafetyViolation extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'SafetyViolation';
  }
}

const unsafe = (message: string): never => {
  throw new SafetyViolation(message);
};

const contentOf = (entry: Entry): string => `${entry.kind}:${Buffer.from(entry.payload).toString('latin1')}`;

/** What Raft promises (figure 3 of the paper), watched from outside while the cluster runs. */
export class SafetyChecks {
  readonly #leaders = new Map<Term, MemberId>();
  readonly #votes = new Map<string, MemberId>();
  /** By `index@term`: the entry's content and the term before it. */
  readonly #written = new Map<string, string>();
  /** What was applied anywhere; index 1 is at 0. */
  readonly #history: Entry[] = [];
  readonly #digests = new Map<number, string>();
  /** The greatest index that any member ever knew to be committed. */
  commitMax = 0;

  get history(): readonly Entry[] {
    return this.#history;
  }

  /** Election safety and leader completeness. */
  led(status: RaftStatus, log: DiskImage): void {
    const before = this.#leaders.get(status.term);
    if (before !== undefined && before !== status.id) {
      unsafe(`election safety: ${before} and ${status.id} both led term ${status.term}`);
    }
    this.#leaders.set(status.term, status.id);
    for (const entry of this.#history) {
      if (entry.index > log.base.index && log.termAt(entry.index) !== entry.term) {
        unsafe(
          `leader completeness: ${status.id} leads term ${status.term} without the committed entry ` +
            `${entry.index}@${entry.term} (it has term ${log.termAt(entry.index) ?? 'none'} there)`,
        );
      }
    }
  }

  /** Log matching. Called before the write is given to the disk. */
  wrote(id: MemberId, persist: Persist, log: DiskImage): void {
    let previousTerm = log.termAt((persist.entries[0]?.index ?? 1) - 1);
    for (const entry of persist.entries) {
      const key = `${entry.index}@${entry.term}`;
      const value = `${previousTerm ?? '?'} ${contentOf(entry)}`;
      const before = this.#written.get(key);
      if (before !== undefined && before !== value) {
        unsafe(`log matching: ${id} wrote "${value}" as ${key}, another has "${before}"`);
      }
      this.#written.set(key, value);
      previousTerm = entry.term;
    }
  }

  /** Nothing leaves before what it relies on is on the sender's disk, and nobody votes twice. */
  sent(message: Message, disk: ScriptedDisk): void {
    const { durable } = disk;
    const what = describeMessage(message);
    if (message.term > durable.hardState.term) {
      unsafe(`durability: ${what} left while the disk has term ${durable.hardState.term}`);
    }
    if (message.kind === 'vote_request') this.#voted(message.from, message.from, message.term, what, durable);
    if (message.kind === 'vote_response' && message.granted) {
      this.#voted(message.from, message.to, message.term, what, durable);
    }
    const { term } = durable.hardState;
    if (message.kind === 'append_response' && message.outcome.accepted && message.term === term) {
      if (durable.last < message.outcome.matchIndex) {
        unsafe(`durability: ${what} left while the disk ends at ${durable.last}`);
      }
    }
  }

  /** State machine safety, and that only what a quorum has on disk is applied. */
  applied(id: MemberId, entry: Entry, disk: ScriptedDisk, voterDisks: readonly ScriptedDisk[]): void {
    const known = this.#history[entry.index - 1];
    if (disk.durable.last < entry.index)
      unsafe(`${id} applies ${entry.index}, its disk ends at ${disk.durable.last}`);
    if (known !== undefined) {
      if (known.term !== entry.term || contentOf(known) !== contentOf(entry)) {
        unsafe(
          `state machine safety: ${id} applies ${entry.index}@${entry.term} "${contentOf(entry)}", ` +
            `another applied ${known.index}@${known.term} "${contentOf(known)}"`,
        );
      }
      return;
    }
    if (entry.index !== this.#history.length + 1)
      unsafe(`${id} applies ${entry.index} before anybody applied all below`);
    const holders = voterDisks.filter(
      ({ durable }) => durable.base.index >= entry.index || durable.termAt(entry.index) === entry.term,
    );
    if (holders.length * 2 <= voterDisks.length) {
      unsafe(
        `${id} applies ${entry.index}@${entry.term}, which is on ${holders.length} of ${voterDisks.length} voters' disks`,
      );
    }
    this.#history.push(entry);
  }

  reached(id: MemberId, index: number, digest: string): void {
    const before = this.#digests.get(index);
    if (before !== undefined && before !== digest) {
      unsafe(`state machine safety: after ${index} the state of ${id} is ${digest}, another's was ${before}`);
    }
    this.#digests.set(index, digest);
  }

  committed(index: number): void {
    if (index > this.commitMax) this.commitMax = index;
  }

  #voted(voter: MemberId, choice: MemberId, term: Term, what: string, durable: DiskImage): void {
    const { term: diskTerm, vote } = durable.hardState;
    if (diskTerm === term && vote !== choice)
      unsafe(`durability: ${what} left while the disk's vote is ${vote ?? 'none'}`);
    const key = `${voter}@${term}`;
    const before = this.#votes.get(key);
    if (before !== undefined && before !== choice)
      unsafe(`${voter} voted for ${before} and ${choice} in term ${term}`);
    this.#votes.set(key, choice);
  }
}

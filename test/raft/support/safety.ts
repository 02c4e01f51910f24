import type {
  Configuration,
  Entry,
  MemberId,
  Message,
  Persist,
  RaftStatus,
  Term,
} from '../../../src/raft/index.ts';
import { decodeConfiguration, describeConfiguration, describeMessage } from '../../../src/raft/index.ts';
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

type DiskOf = (id: MemberId) => ScriptedDisk | undefined;

interface Since {
  readonly index: number;
  readonly configuration: Configuration;
}

const isMajority = (voters: readonly MemberId[], has: (id: MemberId) => boolean): boolean =>
  voters.length === 0 || voters.filter(has).length * 2 > voters.length;

/** Written anew, so that a flaw in the core's arithmetic is none here. */
const isQuorum = ({ voters, votersOutgoing }: Configuration, has: (id: MemberId) => boolean): boolean =>
  voters.length > 0 && isMajority(voters, has) && isMajority(votersOutgoing, has);

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
  /** Those that were applied anywhere, oldest first. */
  readonly #configurations: Since[];
  /** The greatest index that any member ever knew to be committed. */
  commitMax = 0;

  constructor(configuration: Configuration) {
    this.#configurations = [{ index: 0, configuration }];
  }

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

  /** Everybody goes by the configuration as of what it has applied. */
  counted({ id, applied, configuration }: RaftStatus, diskOf: DiskOf): void {
    const expected = this.#configurations.findLast(({ index }) => index <= applied);
    // One that joined knows nobody, or goes by the first entry about the members in its log.
    if (expected?.index === 0 && diskOf(id)?.durable.base.configuration.voters.length === 0) return;
    const [is, should] = [configuration, expected?.configuration ?? configuration].map(describeConfiguration);
    if (is !== should) unsafe(`${id} goes by "${is}", as of ${applied} "${should}" counts`);
  }

  /** What a leader takes for committed is on the disks of a quorum of the configuration that it goes by. */
  decided({ id, commit, term, configuration }: RaftStatus, diskOf: DiskOf): void {
    const entryTerm = diskOf(id)?.handed.termAt(commit);
    if (entryTerm !== term) unsafe(`${id} commits ${commit}@${entryTerm ?? '?'} in term ${term}`);
    const holders: MemberId[] = [];
    const has = (voter: MemberId): boolean => {
      const durable = diskOf(voter)?.durable;
      const holds =
        durable !== undefined && (durable.base.index >= commit || durable.termAt(commit) === entryTerm);
      if (holds) holders.push(voter);
      return holds;
    };
    if (!isQuorum(configuration, has)) {
      unsafe(`${id} commits ${commit} with [${holders.join()}] of "${describeConfiguration(configuration)}"`);
    }
  }

  /** State machine safety, and that only what a quorum has on disk is applied. */
  applied(id: MemberId, entry: Entry, diskOf: DiskOf): void {
    const known = this.#history[entry.index - 1];
    const last = diskOf(id)?.durable.last ?? 0;
    if (last < entry.index) unsafe(`${id} applies ${entry.index}, its disk ends at ${last}`);
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
    const has = (voter: MemberId): boolean => {
      const durable = diskOf(voter)?.durable;
      if (durable === undefined) return false;
      return durable.base.index >= entry.index || durable.termAt(entry.index) === entry.term;
    };
    // The leader that committed it may not have applied the last configuration before it.
    const possible = this.#configurations.slice(-2).map(({ configuration }) => configuration);
    // Nor need it have known any before this one.
    if (entry.kind === 'configuration') possible.push(decodeConfiguration(entry.payload));
    if (!possible.some((configuration) => isQuorum(configuration, has))) {
      unsafe(`${id} applies ${entry.index}@${entry.term}, which is not on a quorum's disks`);
    }
    this.#history.push(entry);
    if (entry.kind !== 'configuration') return;
    this.#configurations.push({ index: entry.index, configuration: decodeConfiguration(entry.payload) });
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

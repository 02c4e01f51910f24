/**
 * A run is one life of a server's process, as a number that grows from start to start of the same disk. Beside the
 * count of starts it holds some chance, so that two processes that began from copies of one disk are told apart. Each
 * disk keeps the runs that it had, its lineage: one that lacks the run which the cluster knows is an older copy, however
 * often it has been started since.
 */
import { lineageMax, type PeerLineage, type PeerPresence } from '../peers/index.ts';
import type { Message } from '../raft/index.ts';
import type { PeerWrite, Recovered } from '../storage/index.ts';
import type { Environment } from './environment.ts';
import { diskWrite, removals, toldWrite, type RememberedPeer, type Told } from './peer-records.ts';

/** Two copies take each other for the same run in one of a million cases. */
const chances = 2 ** 20;

/** `starts`: how often the disk has been opened, this time included. */
export const makeRun = (starts: number, environment: Environment): number =>
  starts * chances + Math.floor(environment.random() * chances);

const startsOf = (run: number): number => Math.floor(run / chances);

/**
 * What a disk tells of its runs. `confirmed`: the one that the cluster is known to have seen, which stays whatever is left
 * out: a server that has been started again and again while it reached nobody is judged by it. Leaving out can only make
 * others refuse a disk that is good.
 */
export const lineageOf = (
  { lineage, lineageSince: since }: Pick<Recovered, 'lineage' | 'lineageSince'>,
  confirmed: number | undefined,
): PeerLineage => {
  const runs = lineage.filter((run) => startsOf(run) >= since);
  const tooMany = runs.length - lineageMax;
  if (tooMany <= 0) return { since, runs };
  const kept = runs.slice(tooMany);
  const isLost = confirmed !== undefined && runs.includes(confirmed) && !kept.includes(confirmed);
  return { since, runs: isLost ? [confirmed, ...kept.slice(1)] : kept };
};

interface Identity {
  readonly run: number;
  readonly diskId: Uint8Array;
}

/** What is known of a server's disk while it runs. */
export interface DiskOfRun extends Identity {
  readonly lineage?: PeerLineage;
}

/**
 * Whether a disk has had a run, by its own word. 'assumed': only the count of starts says so, as it was before there was
 * a lineage. 'left out': it may have had it, longer ago than it tells.
 */
type Finding = 'had' | 'assumed' | 'left out' | 'not had';

const findingOf = (known: number, { run, lineage }: DiskOfRun): Finding => {
  const starts = startsOf(known);
  if (known === run) return 'had';
  if (starts >= startsOf(run)) return 'not had';
  if (lineage === undefined || starts < lineage.since) return 'assumed';
  if (lineage.runs.includes(known)) return 'had';
  return lineage.runs.some((each) => startsOf(each) === starts) ? 'not had' : 'left out';
};

const advice = 'it must not vote until it has been replaced';

interface Refusal {
  readonly reason: string;
  /** Nothing that the one who refuses may hear later can change it, if what it goes by is in the log. */
  readonly forGood: boolean;
}

const refusalBy = (member: number, known: Identity | undefined, now: DiskOfRun): Refusal | undefined => {
  if (known === undefined) return undefined;
  if (!Buffer.from(known.diskId).equals(now.diskId)) {
    const reason = `member ${member} has come back with another data directory than the cluster knows: ${advice}`;
    return { reason, forGood: true };
  }
  const finding = findingOf(known.run, now);
  const [starts, knownStarts] = [startsOf(now.run), startsOf(known.run)];
  switch (finding) {
    case 'had':
    case 'assumed':
      return undefined;
    case 'left out': {
      const reason =
        `member ${member} has come back with data that do not tell any more whether they had start ${knownStarts}, ` +
        'the last that is known here: it is let in when a later one is known, or has to be replaced';
      return { reason, forGood: false };
    }
    case 'not had': {
      const why =
        starts > knownStarts
          ? `start ${starts}, but not after the start ${knownStarts} that the cluster has seen`
          : `start ${starts}, the cluster has seen start ${knownStarts}`;
      const reason = `member ${member} has come back with an older copy of its data (${why}): ${advice}`;
      return { reason, forGood: true };
    }
    default: {
      const unknown: never = finding;
      throw new TypeError(`unknown finding ${JSON.stringify(unknown)}`);
    }
  }
};

/**
 * Why the data of a server are outdated for certain, by what the log says of it: so for ever, whoever else would let it
 * in. undefined: they are not, or it cannot be told.
 */
export const outdatedByLog = (
  member: number,
  known: Identity | undefined,
  now: DiskOfRun,
): string | undefined => {
  const refusal = refusalBy(member, known, now);
  return refusal?.forGood === true ? refusal.reason : undefined;
};

const nothing = (): Told => ({ term: 0, indexInTerm: 0, applied: 0 });

const raise = (told: Told, { term, indexInTerm, applied }: Told): void => {
  if (term > told.term) {
    told.term = term;
    told.indexInTerm = indexInTerm;
  } else if (term === told.term) told.indexInTerm = Math.max(told.indexInTerm, indexInTerm);
  told.applied = Math.max(told.applied, applied);
};

/** Why a peer is not let in. */
export interface DiskRefusal {
  readonly reason: string;
  /** For certain: no other disk could have had what this one lacks. */
  readonly outdated: boolean;
}

/** Which records of a peer have to be written: both, or only what its present run has told. */
type Unwritten = 'all' | 'told';

const nothingToWrite: readonly PeerWrite[] = [];

/**
 * What each peer has told this server, also before its start: what it knew at a tick rides with the next batch on disk. A
 * copy of a disk that was made while its server ran, and is put back, has the run that the cluster knows; but not the
 * votes and entries that it acknowledged after the copy was made. A message leaves only when what it says is durable, so a
 * new run must begin with all of it.
 */
export class PeerMemory {
  readonly #peers: Map<number, RememberedPeer>;
  /** Starts that are in the log: see `announced`. */
  readonly #announced = new Map<number, Identity>();
  readonly #unwritten = new Map<number, Unwritten>();

  /** `told`: what the disk remembers, which belongs to this memory from now on. */
  constructor(told: ReadonlyMap<number, RememberedPeer> = new Map()) {
    this.#peers = new Map(told);
  }

  /**
   * A server said that it began this run: it is in the log, be that applied or not, committed or not. Only the disk that
   * had the run could say so. (What is applied is in the state; what is not would be forgotten when all are started again.)
   */
  announced(member: number, { run, diskId }: Identity): void {
    this.#announced.set(member, { run, diskId });
  }

  /**
   * Why a member that comes with this presence is not the one that is known here or, by `known`, to the cluster;
   * undefined: it may be, and counts as this run from now on.
   *
   * Only the log, or a run of the very same line, makes it certain. Of two copies of a disk the one that was heard first
   * keeps the other out, and may be the one of which the cluster will know nothing.
   */
  refusalOf(member: number, known: Identity | undefined, presence: PeerPresence): DiskRefusal | undefined {
    const byLog = refusalBy(member, known, presence);
    if (byLog !== undefined) return { reason: byLog.reason, outdated: byLog.forGood };
    this.#unlearn(member, known, presence);
    const announced = this.#announced.get(member);
    const byAnnouncement = refusalBy(member, announced, presence);
    if (byAnnouncement !== undefined) return { reason: byAnnouncement.reason, outdated: false };
    const remembered = this.#peers.get(member);
    const byMemory = refusalBy(member, remembered, presence);
    if (byMemory !== undefined && (byMemory.forGood || !isLater(known ?? announced, remembered)))
      return { reason: byMemory.reason, outdated: false };
    if (remembered?.run === presence.run) return undefined;
    const before = nothing();
    if (remembered !== undefined) {
      raise(before, remembered.before);
      raise(before, remembered.now);
    }
    const isOneLine =
      remembered === undefined || (remembered.isOneLine && findingOf(remembered.run, presence) === 'had');
    const lost = lostSince(before, presence.standing);
    if (lost !== undefined) {
      const reason = `member ${member} has come back with an older copy of its data (${lost}): ${advice}`;
      return { reason, outdated: isOneLine };
    }
    const { run, diskId, lineage } = presence;
    this.#peers.set(member, { run, diskId, ...(lineage && { lineage }), before, now: nothing(), isOneLine });
    this.#announced.delete(member);
    this.#unwritten.set(member, 'all');
    return undefined;
  }

  /**
   * A member's disk is what the log says. Who was taken for it before that was known, with another disk or a copy that
   * does not have the run of the log, was not. What is in the log only counts for less than what is applied.
   */
  #unlearn(member: number, known: Identity | undefined, presence: PeerPresence): void {
    if (isAnother(this.#announced.get(member), known, presence)) this.#announced.delete(member);
    const remembered = this.#peers.get(member);
    if (
      isAnother(remembered, known, presence) ||
      isAnother(remembered, this.#announced.get(member), presence)
    )
      this.forget(member);
  }

  /** A message came; it left when its sender's disk had its term, and what it acknowledges. */
  heard(member: number, run: number, message: Message): void {
    const remembered = this.#peers.get(member);
    if (remembered === undefined) return;
    const told = toldBy(run, remembered);
    const { term } = message;
    if (term < told.term) return;
    const accepted =
      message.kind === 'append_response' && message.outcome.accepted ? message.outcome.matchIndex : 0;
    if (term === told.term && accepted <= told.indexInTerm) return;
    told.term = term;
    told.indexInTerm = accepted;
    this.#changed(member, run, remembered);
  }

  heardApplied(member: number, run: number, index: number): void {
    const remembered = this.#peers.get(member);
    if (remembered === undefined) return;
    const told = toldBy(run, remembered);
    if (index <= told.applied) return;
    told.applied = index;
    this.#changed(member, run, remembered);
  }

  #changed(member: number, run: number, remembered: RememberedPeer): void {
    if (run !== remembered.run) this.#unwritten.set(member, 'all');
    else if (!this.#unwritten.has(member)) this.#unwritten.set(member, 'told');
  }

  /** Those who have left for good: no id is used again. */
  forgetAll(isGone: (member: number) => boolean): void {
    for (const member of this.#peers.keys()) if (isGone(member)) this.forget(member);
    for (const member of this.#announced.keys()) if (isGone(member)) this.#announced.delete(member);
  }

  forget(member: number): void {
    if (this.#peers.delete(member)) this.#unwritten.set(member, 'all');
  }

  /** What has changed since it was asked for last, of those who are members: what is of others waits until they are. */
  takeWrites(isMember: (member: number) => boolean): readonly PeerWrite[] {
    if (this.#unwritten.size === 0) return nothingToWrite;
    const writes: PeerWrite[] = [];
    for (const [member, unwritten] of this.#unwritten) {
      const remembered = this.#peers.get(member);
      if (remembered === undefined) writes.push(...removals(member));
      else if (!isMember(member)) continue;
      else {
        if (unwritten === 'all') writes.push(diskWrite(member, remembered));
        writes.push(toldWrite(member, remembered));
      }
      this.#unwritten.delete(member);
    }
    return writes;
  }
}

/** What comes late from an earlier run was true of the disk then, and must be now. */
const toldBy = (run: number, remembered: RememberedPeer): Told =>
  remembered.run === run ? remembered.now : remembered.before;

const isLater = (known: Identity | undefined, remembered: Identity | undefined): boolean =>
  known !== undefined && remembered !== undefined && startsOf(known.run) > startsOf(remembered.run);

/** Whether who is remembered is not the one of the log, as far as the one that has come can tell. */
const isAnother = (
  remembered: DiskOfRun | undefined,
  known: Identity | undefined,
  presence: DiskOfRun,
): boolean => {
  if (remembered === undefined || known === undefined) return false;
  if (!Buffer.from(known.diskId).equals(remembered.diskId)) return true;
  return startsOf(remembered.run) >= startsOf(known.run)
    ? findingOf(known.run, remembered) === 'not had'
    : findingOf(known.run, presence) === 'had' && findingOf(remembered.run, presence) === 'not had';
};

const lostSince = (told: Told, standing: PeerPresence['standing']): string | undefined => {
  if (standing === undefined) return undefined;
  const { term, lastIndex } = standing;
  if (term < told.term) return `it knows term ${term} and has been heard in term ${told.term}`;
  const has = term === told.term ? Math.max(told.indexInTerm, told.applied) : told.applied;
  return lastIndex < has ? `its log ends at ${lastIndex}, and it has acknowledged ${has}` : undefined;
};

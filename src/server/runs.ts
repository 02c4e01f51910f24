/**
 * A run is one life of a server's process, as a number that grows from start to start of the same disk. Beside the
 * count of starts it holds some chance, so that two processes that began from copies of one disk are told apart.
 */
import type { PeerPresence } from '../peers/index.ts';
import type { Message } from '../raft/index.ts';
import type { Environment } from './environment.ts';

/** Two copies take each other for the same run in one of a million cases. */
const chances = 2 ** 20;

/** `starts`: how often the disk has been opened, this time included. */
export const makeRun = (starts: number, environment: Environment): number =>
  starts * chances + Math.floor(environment.random() * chances);

const startsOf = (run: number): number => Math.floor(run / chances);

interface Identity {
  readonly run: number;
  readonly diskId: Uint8Array;
}

const advice = 'it must not vote until it has been replaced';

const refusalOf = (member: number, known: Identity | undefined, now: Identity): string | undefined => {
  if (known === undefined) return undefined;
  if (!Buffer.from(known.diskId).equals(now.diskId)) {
    return `member ${member} has come back with another data directory than the cluster knows: ${advice}`;
  }
  const [starts, knownStarts] = [startsOf(now.run), startsOf(known.run)];
  if (starts > knownStarts || now.run === known.run) return undefined;
  return `member ${member} has come back with an older copy of its data (start ${starts}, the cluster has seen start ${knownStarts}): ${advice}`;
};

/** What a disk must still have, because a message of its server has said so. */
interface Told {
  term: number;
  /** Acknowledged in that term: entries of one leadership are not taken back while it lasts. */
  indexInTerm: number;
  /** Applied there, so committed and never taken back at all. */
  applied: number;
}

const nothing = (): Told => ({ term: 0, indexInTerm: 0, applied: 0 });

const raise = (told: Told, { term, indexInTerm, applied }: Told): void => {
  if (term > told.term) {
    told.term = term;
    told.indexInTerm = indexInTerm;
  } else if (term === told.term) told.indexInTerm = Math.max(told.indexInTerm, indexInTerm);
  told.applied = Math.max(told.applied, applied);
};

interface Remembered extends Identity {
  /** By runs before this one. */
  readonly before: Told;
  readonly now: Told;
}

/**
 * What each peer has told this server since its start. A copy of a disk that was made while its server ran, and is put
 * back, knows the disk and the count of starts; but not the votes and entries that it acknowledged after the copy
 * was made. A message leaves only when what it says is durable, so a new run must begin with all of it.
 */
export class PeerMemory {
  readonly #peers = new Map<number, Remembered>();

  /**
   * Why a member that comes with this presence is not the one that is known here or, by `known`, to the cluster;
   * undefined: it may be, and counts as this run from now on.
   */
  refusalOf(member: number, known: Identity | undefined, presence: PeerPresence): string | undefined {
    this.#unlearn(member, known);
    const remembered = this.#peers.get(member);
    const refusal = refusalOf(member, known, presence) ?? refusalOf(member, remembered, presence);
    if (refusal !== undefined || remembered?.run === presence.run) return refusal;
    const before = nothing();
    if (remembered !== undefined) {
      raise(before, remembered.before);
      raise(before, remembered.now);
    }
    const lost = lostSince(before, presence.standing);
    if (lost !== undefined)
      return `member ${member} has come back with an older copy of its data (${lost}): ${advice}`;
    this.#peers.set(member, { run: presence.run, diskId: presence.diskId, before, now: nothing() });
    return undefined;
  }

  /** A member's disk is what the log says: who was taken for it before that was known, with another disk, was not. */
  #unlearn(member: number, known: Identity | undefined): void {
    const remembered = this.#peers.get(member);
    if (known === undefined || remembered === undefined) return;
    if (!Buffer.from(known.diskId).equals(remembered.diskId)) this.#peers.delete(member);
  }

  /** A message came; it left when its sender's disk had its term, and what it acknowledges. */
  heard(member: number, run: number, message: Message): void {
    const told = this.#told(member, run);
    if (told === undefined) return;
    const { term } = message;
    if (term > told.term) {
      told.term = term;
      told.indexInTerm = 0;
    }
    if (message.kind === 'append_response' && message.outcome.accepted && term === told.term) {
      told.indexInTerm = Math.max(told.indexInTerm, message.outcome.matchIndex);
    }
  }

  heardApplied(member: number, run: number, index: number): void {
    const told = this.#told(member, run);
    if (told !== undefined) told.applied = Math.max(told.applied, index);
  }

  /** The others have left for good: no id is used again. */
  keepOnly(members: ReadonlySet<number>): void {
    for (const member of this.#peers.keys()) if (!members.has(member)) this.#peers.delete(member);
  }

  /** What comes late from an earlier run was true of the disk then, and must be now. */
  #told(member: number, run: number): Told | undefined {
    const remembered = this.#peers.get(member);
    return remembered?.run === run ? remembered.now : remembered?.before;
  }
}

const lostSince = (told: Told, standing: PeerPresence['standing']): string | undefined => {
  if (standing === undefined) return undefined;
  const { term, lastIndex } = standing;
  if (term < told.term) return `it knows term ${term} and has been heard in term ${told.term}`;
  const has = term === told.term ? Math.max(told.indexInTerm, told.applied) : told.applied;
  return lastIndex < has ? `its log ends at ${lastIndex}, and it has acknowledged ${has}` : undefined;
};

/**
 * Who the members are, by name and address: as the configuration file says of those it names, else as the log says, else
 * as they say themselves.
 */
import type { PeerAddress } from '../peers/index.ts';
import { asMemberId, membersOf, type Configuration } from '../raft/index.ts';
import type { MemberRecord } from '../store/index.ts';

export interface MemberDescription {
  readonly id: number;
  /** The CN of its certificate. */
  readonly name: string;
  /** Where its peers reach it: 'host:port'. */
  readonly peersAddress: string;
  /** Where agents reach it: a wss URL. */
  readonly agentsUrl: string;
}

/** Those who vote now; in a joint configuration by either half. */
export const allVoters = ({ voters, votersOutgoing }: Configuration): readonly number[] => [
  ...new Set([...voters, ...votersOutgoing]),
];

/**
 * Enough for a cluster of nine, all but this one unknown. What they cost is a link each, and their certificate is of the
 * servers' CA.
 */
const provisionalMax = 8;

const nobody: readonly number[] = [];

export class MemberDirectory {
  readonly #file: ReadonlyMap<number, MemberDescription>;
  /** As last known: who has left is still spoken to while it leads. */
  readonly #known: Map<number, MemberDescription>;
  /**
   * They have said who they are, and neither the file nor the log as far as it is applied here knows of them: members
   * that were added while this server was away, for all it knows, and one of them may be the leader from whom it will
   * learn that.
   */
  readonly #provisional = new Map<number, MemberDescription>();
  #members: readonly number[] = [];
  /** The greatest id that has ever been a member's, as far as is known here; 0: nothing is known. */
  #greatest = 0;
  #current: readonly MemberDescription[] = [];

  constructor(file: readonly MemberDescription[]) {
    this.#file = new Map(file.map((member) => [member.id, member]));
    this.#known = new Map(this.#file);
  }

  /** `lastMember`: the greatest id that the log gave to a member. */
  update(configuration: Configuration, records: readonly MemberRecord[], lastMember: number): void {
    for (const record of records) {
      if (this.#file.has(record.member) || record.name === '') continue;
      const { member: id, name, peersAddress, agentsUrl } = record;
      this.#known.set(id, { id, name, peersAddress, agentsUrl });
    }
    const counted = membersOf(configuration);
    const wanted = records.filter((record) => record.wanted !== 'removed').map(({ member }) => member);
    this.#members = [...new Set<number>([...counted, ...wanted])].sort((a, b) => a - b);
    this.#greatest = counted.length === 0 ? 0 : Math.max(lastMember, ...this.#members);
    for (const id of this.#provisional.keys())
      if (this.#known.has(id) || this.isGone(id)) this.#provisional.delete(id);
    const ids = counted.length === 0 ? [...this.#file.keys()].sort((a, b) => a - b) : this.#members;
    this.#current = ids.map((id) => this.find(id));
  }

  /** Sorted by id. A server that has heard nothing of the cluster yet goes by its file. */
  get current(): readonly MemberDescription[] {
    return this.#current;
  }

  /** Of one whose name nobody has told, '' and ''. */
  find(id: number): MemberDescription {
    return (
      this.#known.get(id) ?? this.#provisional.get(id) ?? { id, name: '', peersAddress: '', agentsUrl: '' }
    );
  }

  /** Until the log says who this is, or that it is gone. false: that is said already, or there are too many of them. */
  takeProvisionally(id: number, name: string, peersAddress: string): boolean {
    if (this.#known.has(id) || this.#provisional.has(id) || this.isGone(id)) return false;
    if (this.#provisional.size >= provisionalMax) return false;
    this.#provisional.set(id, { id, name, peersAddress, agentsUrl: '' });
    return true;
  }

  /** Those that are no members, as far as is known here. */
  get strangers(): readonly number[] {
    if (this.#provisional.size === 0) return nobody;
    return [...this.#provisional.keys()].filter((id) => !this.has(id));
  }

  forget(stranger: number): void {
    this.#provisional.delete(stranger);
  }

  has(id: number): boolean {
    return this.#members.includes(id);
  }

  /** It has been a member, or was to be one, and will never be one again. */
  isGone(id: number): boolean {
    return !this.has(id) && id <= this.#greatest;
  }

  /**
   * Whom this server is to have links with. Also those that its file names and the log, as far as it is applied here,
   * has not reached yet: one of them may be the leader from whom it will learn of them; and those that have come and
   * said who they are. And the leader that has left: it leads until another does.
   */
  peers(self: number, leader: number | undefined): readonly PeerAddress[] {
    const ids = new Set([...this.#members, ...this.#provisional.keys()]);
    for (const id of this.#file.keys()) if (id > this.#greatest) ids.add(id);
    if (leader !== undefined) ids.add(leader);
    ids.delete(self);
    return [...ids]
      .sort((a, b) => a - b)
      .map((id) => this.find(id))
      .filter(({ name, peersAddress }) => name !== '' && peersAddress !== '')
      .map(({ id, name, peersAddress }) => ({ id: asMemberId(id), name, address: peersAddress }));
  }
}

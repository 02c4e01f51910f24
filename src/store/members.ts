/**
 * What is wanted of the cluster's servers: who is to be added, to vote, to leave. The leader makes raft's configuration
 * agree with it, and what the configuration has become is told here.
 *
 * An id is given once. Who has left has no record any more, and nothing that is said of it later brings it back: its
 * disk may be gone, and what it voted for with it.
 */
import { unreachable } from './assert.ts';
import type { Counters } from './state-codec.ts';
import type { CommandBody, CommandResult, MemberRecord } from './types.ts';

type MemberAdd = Extract<CommandBody, { kind: 'member_add' }>;
export type MemberCommand = MemberAdd | Extract<CommandBody, { kind: 'member_promote' | 'member_remove' }>;

/** Far more than a cluster has; every server keeps all of them in memory and in every snapshot. */
const recordsMax = 100;

export const changeRefused = (message: string): CommandResult => ({
  kind: 'failed',
  failure: { code: 'MEMBERSHIP_REFUSED', message },
});

const about = (member: number): CommandResult => ({ kind: 'member', member });

export class MemberTable {
  readonly #counters: Counters;
  readonly #records = new Map<number, MemberRecord>();
  readonly #dirty = new Set<number>();
  /** undefined: to be made anew. */
  #sorted: readonly MemberRecord[] | undefined = [];

  /** `lastMember` and `members` of the counters are its own; who calls writes the counters after every change. */
  constructor(counters: Counters) {
    this.#counters = counters;
  }

  get size(): number {
    return this.#records.size;
  }

  /** By id. The same array until something changes. */
  get sorted(): readonly MemberRecord[] {
    this.#sorted ??= [...this.#records.values()].sort((a, b) => a.member - b.member);
    return this.#sorted;
  }

  /** Was a member, or never one, and is not to be one. Nobody is as long as no configuration entry was applied. */
  isGone(member: number): boolean {
    const { members } = this.#counters;
    return members.length > 0 && !members.includes(member) && !this.#records.has(member);
  }

  change(command: MemberCommand): CommandResult {
    switch (command.kind) {
      case 'member_add':
        return this.#add(command);
      case 'member_promote':
        return this.#promote(command.member);
      case 'member_remove':
        return this.#remove(command.member);
      default:
        return unreachable(command, 'a command about members');
    }
  }

  #add({ least, name, peersAddress, agentsUrl, replaces }: MemberAdd): CommandResult {
    const alike = this.#liveWithName(name, replaces);
    if (alike !== undefined) {
      if (alike.peersAddress !== peersAddress || alike.agentsUrl !== agentsUrl) {
        return changeRefused(
          `member ${alike.member} has the name ${name} and other addresses: take another name, or replace that member`,
        );
      }
      // Asked once more. Whom it replaces may be gone by now.
      if (replaces !== 0 && !this.isGone(replaces)) {
        this.#want(alike.member, 'voter');
        this.#want(replaces, 'removed');
      }
      return about(alike.member);
    }
    if (replaces !== 0 && this.isGone(replaces)) {
      return changeRefused(
        `member ${replaces}, which was to be replaced, is no member: add a new one instead`,
      );
    }
    if (this.#records.get(replaces)?.wanted === 'removed') {
      return changeRefused(
        `member ${replaces}, which was to be replaced, is being removed: add a new one instead`,
      );
    }
    if (this.#records.size >= recordsMax) {
      return changeRefused(
        `${this.#records.size} members were added or are to leave: finish these changes first`,
      );
    }
    const member = Math.max(least, this.#counters.lastMember + 1, replaces + 1);
    if (!Number.isSafeInteger(member)) return changeRefused(`${member} is too large for the id of a member`);
    this.#counters.lastMember = member;
    this.#put({ member, name, peersAddress, agentsUrl, wanted: replaces === 0 ? 'learner' : 'voter' });
    if (replaces !== 0) this.#want(replaces, 'removed');
    return about(member);
  }

  #promote(member: number): CommandResult {
    if (member === 0 || this.isGone(member)) return changeRefused(`${member} is no member: see who is`);
    if (this.#records.get(member)?.wanted === 'removed') {
      return changeRefused(`member ${member} is being removed: add a new one instead`);
    }
    this.#want(member, 'voter');
    return about(member);
  }

  #remove(member: number): CommandResult {
    if (member === 0 || this.isGone(member)) return changeRefused(`${member} is no member: see who is`);
    this.#want(member, 'removed');
    return about(member);
  }

  /** A configuration entry was applied. Gives those that have left by it. */
  applyConfiguration(members: readonly number[]): readonly number[] {
    const counters = this.#counters;
    counters.members = [...new Set(members)].sort((a, b) => a - b);
    counters.lastMember = Math.max(counters.lastMember, counters.members.at(-1) ?? 0);
    const left = this.sorted.filter(
      ({ member, wanted }) => wanted === 'removed' && !counters.members.includes(member),
    );
    for (const { member } of left) this.#drop(member);
    return left.map(({ member }) => member);
  }

  /** For another cluster, which has its own. */
  clear(): void {
    for (const { member } of this.sorted) this.#drop(member);
    this.#counters.members = [];
    this.#counters.lastMember = 0;
  }

  /** From disk; false: there is one already. */
  load(record: MemberRecord): boolean {
    if (this.#records.has(record.member)) return false;
    this.#records.set(record.member, record);
    this.#sorted = undefined;
    return true;
  }

  /** Visits every record that changed or went since the last call, once; undefined: it is gone. */
  takeDirty(visit: (member: number, record: MemberRecord | undefined) => void): void {
    for (const member of this.#dirty) visit(member, this.#records.get(member));
    this.#dirty.clear();
  }

  #liveWithName(name: string, except: number): MemberRecord | undefined {
    return this.sorted.find((one) => one.name === name && one.wanted !== 'removed' && one.member !== except);
  }

  /** Of one that has no record yet the configuration files know the rest. */
  #want(member: number, wanted: MemberRecord['wanted']): void {
    const record = this.#records.get(member);
    if (record?.wanted === wanted) return;
    this.#counters.lastMember = Math.max(this.#counters.lastMember, member);
    this.#put({ member, name: '', peersAddress: '', agentsUrl: '', ...record, wanted });
  }

  #put(record: MemberRecord): void {
    this.#records.set(record.member, record);
    this.#dirty.add(record.member);
    this.#sorted = undefined;
  }

  #drop(member: number): void {
    this.#records.delete(member);
    this.#dirty.add(member);
    this.#sorted = undefined;
  }
}

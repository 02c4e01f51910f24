/**
 * Faults that lie in wait: some moments are over within a round trip, so that a fault at a time drawn beforehand hardly
 * ever meets them. They strike between two events of a server.
 */
import { membersOf, type Configuration, type InvariantView } from '../raft/index.ts';
import type { VirtualTime } from './clock.ts';
import type { Machine } from './machine.ts';
import type { PeerNetwork } from './peer-network.ts';
import type { Fault } from './plan.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export type Ambush = Extract<Fault, { readonly kind: 'ambush' }>;

export interface AmbushWorld {
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly faults: Counts;
  readonly machines: readonly Machine[];
  readonly peers: PeerNetwork;
  readonly leader: () => number | undefined;
  /** Whether it was a member by a committed configuration, and is none by a later one. */
  readonly hasLeft: (member: number) => boolean;
  /** Calls back after `forMs`, or when all is healed. */
  readonly until: (forMs: number, end: () => void) => void;
}

const isMajority = (half: readonly number[], side: ReadonlySet<number>): boolean =>
  2 * half.filter((id) => side.has(id)).length > half.length;

/** As few as are a majority of one half and none of the other, with `first` among them; undefined: there are none such. */
const majorityOfOneHalf = (
  { voters, votersOutgoing }: Configuration,
  half: 'incoming' | 'outgoing',
  first: number,
  without: number | undefined,
): ReadonlySet<number> | undefined => {
  const [chosen, other]: readonly (readonly number[])[] =
    half === 'incoming' ? [voters, votersOutgoing] : [votersOutgoing, voters];
  if (chosen === undefined || other === undefined || !chosen.includes(first)) return undefined;
  const side = new Set([first]);
  const rest = chosen.filter((id) => id !== first && id !== without);
  const inOrder = [...rest.filter((id) => !other.includes(id)), ...rest.filter((id) => other.includes(id))];
  for (const id of inOrder) if (!isMajority(chosen, side)) side.add(id);
  return isMajority(chosen, side) && !isMajority(other, side) ? side : undefined;
};

export class Ambushes {
  readonly #world: AmbushWorld;
  readonly #waiting = new Set<Ambush>();

  constructor(world: AmbushWorld) {
    this.#world = world;
  }

  /** Looking costs something. */
  get waits(): boolean {
    return this.#waiting.size > 0;
  }

  lay(ambush: Ambush): void {
    this.#waiting.add(ambush);
  }

  /** No more of them; of those that still wait the moment has not come. */
  end(): void {
    for (const { moment } of this.#waiting) this.#world.faults.add(`ambush: ${moment}: not possible`);
    this.#waiting.clear();
  }

  /** After an event of a server. */
  looked(machine: Machine, view: InvariantView): void {
    for (const ambush of this.#waiting) {
      if (ambush.moment === 'joint' && this.#partsJoint(ambush, machine, view)) return this.#struck(ambush);
      if (ambush.moment === 'unsealed' && this.#partsUnsealed(ambush, machine, view))
        return this.#struck(ambush);
    }
  }

  /** A server has begun the write that makes a snapshot its state. */
  installing(machine: Machine): void {
    for (const ambush of this.#waiting) {
      if (ambush.moment !== 'install') continue;
      this.#struck(ambush);
      this.#hangInstall(ambush, machine);
      return;
    }
  }

  /** A server has been asked to open a session, and will send that to the leader. */
  opening({ id }: Machine): void {
    const { time, trace, peers } = this.#world;
    const leader = this.#world.leader();
    if (leader === undefined || leader === id) return;
    for (const ambush of this.#waiting) {
      if (ambush.moment !== 'opening') continue;
      this.#struck(ambush);
      time.after(ambush.afterMs, time.world, 'input', () => {
        trace.say(`an ambush resets the link from ${id} to ${leader}`);
        peers.reset(id, leader);
      });
      return;
    }
  }

  #struck(ambush: Ambush): void {
    this.#waiting.delete(ambush);
    this.#world.faults.add(`ambush: ${ambush.moment}`);
  }

  /** Parts the cluster so that one half of a joint configuration could decide alone, if it were enough. */
  #partsJoint(
    { half, by, forMs }: Extract<Ambush, { readonly moment: 'joint' }>,
    { id }: Machine,
    { role, configuration }: InvariantView,
  ): boolean {
    if (configuration.votersOutgoing.length === 0 || (role === 'leader') !== (by === 'leader')) return false;
    const without = by === 'leader' ? undefined : this.#world.leader();
    const side = majorityOfOneHalf(configuration, half, id, without);
    if (side === undefined) return false;
    this.#part([...side], this.#othersThan(side), forMs);
    return true;
  }

  /** The leader has applied who has left, and its word for it that nobody needs them any more reaches nobody. */
  #partsUnsealed(
    { forMs }: Extract<Ambush, { readonly moment: 'unsealed' }>,
    { id, process }: Machine,
    { role, configuration }: InvariantView,
  ): boolean {
    if (role !== 'leader' || process === undefined || configuration.votersOutgoing.length > 0) return false;
    if (!configuration.voters.some((voter) => voter === id)) return false;
    const { machines, hasLeft } = this.#world;
    const isThere = machines.some((one) => one.on && one.removals === 0 && hasLeft(one.id));
    if (!isThere || process.server.inspect().raft.status().changeSettled) return false;
    const members: readonly number[] = membersOf(configuration);
    this.#part(
      [id],
      members.filter((other) => other !== id),
      forMs,
    );
    return true;
  }

  /** The write lasts: what was sent before comes late, or another leader comes, which has not shortened its log as far. */
  #hangInstall(
    { forMs, leader: fate }: Extract<Ambush, { readonly moment: 'install' }>,
    machine: Machine,
  ): void {
    const { time, machines } = this.#world;
    machine.disk.hungUntilMs = time.nowMs + forMs;
    if (fate === 'stays') return;
    time.after(0, time.world, 'input', () => {
      const id = this.#world.leader();
      const leader = machines.find((one) => one.id === id);
      if (leader === undefined || leader === machine) return;
      if (fate === 'cut_off') {
        this.#part([leader.id], this.#othersThan(new Set([leader.id])), forMs);
        return;
      }
      leader.crash({ silent: false, keepSome: true });
      time.after(forMs, time.world, 'input', () => leader.start());
    });
  }

  #othersThan(side: ReadonlySet<number>): number[] {
    return this.#world.machines.map(({ id }) => id).filter((id) => !side.has(id));
  }

  /** What was under way between them is lost as well. */
  #part(side: readonly number[], others: readonly number[], forMs: number): void {
    const { peers, trace, until } = this.#world;
    trace.say(`an ambush parts ${side.join(', ')} from ${others.join(', ')}`);
    const cuts = side.flatMap((one) =>
      others.flatMap((other) => [[one, other] as const, [other, one] as const]),
    );
    for (const [from, to] of cuts) {
      peers.reset(from, to);
      peers.block(from, to);
    }
    until(forMs, () => {
      for (const [from, to] of cuts) peers.unblock(from, to);
    });
  }
}

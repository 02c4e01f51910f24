/** What each fault does to the world, and how it ends. */
import type { Copies } from './copies.ts';
import type { Agent } from './agent.ts';
import { Ambushes } from './ambushes.ts';
import type { AgentNetwork } from './agent-network.ts';
import type { VirtualTime } from './clock.ts';
import type { Machine } from './machine.ts';
import { MemoryDisk } from '../storage/index.ts';
import type { NetworkConditions, PeerNetwork } from './peer-network.ts';
import { membersOf } from '../raft/index.ts';
import type { AccessOperator } from './access-operator.ts';
import type { Operator, Wish } from './operator.ts';
import type { Fault, Plan, Target } from './plan.ts';
import { Random } from './random.ts';
import { Remembered } from './remembered.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export interface FaultWorld {
  readonly plan: Plan;
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly faults: Counts;
  readonly machines: readonly Machine[];
  readonly agents: readonly Agent[];
  readonly peers: PeerNetwork;
  readonly agentNetwork: AgentNetwork;
  readonly operator: Operator;
  readonly accessOperator: AccessOperator;
  readonly copies: Copies;
  readonly leader: () => number | undefined;
  /** Whom the cluster counts, learners included. */
  readonly members: () => readonly number[];
  /** Whether it was a member once, and is none any more. */
  readonly hasLeft: (member: number) => boolean;
  /** Nobody needs it any more. */
  readonly mayBeForgotten: (member: number) => boolean;
}

type Damaging = Extract<
  Fault,
  { kind: 'flip_bit' | 'wipe_disk' | 'older_disk' | 'earlier_disk' | 'lying_disk' }
>;

/** After the healing: how often is looked for members that were never started. */
const forgottenEveryMs = 1000;

/** How often is looked whether a copy of a disk may be put back. */
const momentEveryMs = 100;

/** How often where it is a matter of a round trip, and for how long a server is heard of by the log alone. */
const hearsayEveryMs = 2;
const hearsayForMs = 4000;

const describeFault = (fault: Fault): string => `FAULT ${JSON.stringify(fault)}`;

export class Faults {
  readonly #world: FaultWorld;
  /** Ends what a fault began, if it has not ended; at the latest when all is healed. */
  readonly #endings = new Set<() => void>();
  readonly ambushes: Ambushes;
  #healed = false;

  constructor(world: FaultWorld) {
    this.#world = world;
    this.ambushes = new Ambushes({ ...world, until: (forMs, end) => this.#until(forMs, end) });
  }

  schedule(): void {
    const { plan, time } = this.#world;
    for (const fault of plan.faults) {
      time.at(fault.atMs, time.world, 'input', () => {
        if (!this.#healed) this.#begin(fault);
      });
    }
  }

  /** All ends: what was down or cut comes back, all but what is damaged. */
  heal(): void {
    this.#healed = true;
    const { machines, peers, agentNetwork, agents, plan, trace, time } = this.#world;
    trace.say('HEAL');
    this.ambushes.end();
    for (const end of this.#endings) end();
    this.#endings.clear();
    peers.unblockAll();
    agentNetwork.unblockAll();
    // Else both ends have to find out by themselves, which takes a minute.
    if (plan.seed % 5 !== 0) agentNetwork.resetDead();
    Object.assign(peers.conditions, { ...plan.network, loss: 0, duplication: 0, reordering: 0 });
    for (const machine of machines) {
      machine.resume();
      machine.disk.slowness = 1;
      machine.disk.hungUntilMs = 0;
      machine.disk.fullUntilMs = 0;
      machine.disk.failNext = false;
      machine.clock.lookTakesMs = 0;
      machine.clock.rate = 1;
      // The others do not let it in: an operator would take it away.
      const isLost = machine.damage === 'wiped' || machine.damage === 'older' || machine.foundOut;
      if (isLost || this.#knowsNobody(machine)) this.#takeAway(machine);
      else machine.start();
    }
    this.#startForgotten();
    if (plan.replacesLost === true) this.#world.operator.cleanUp();
    for (const agent of agents) {
      if (agent.life?.stopped === true) time.resume(agent.life, true);
      // What is in the middle of its end is not waited for.
      if (agent.closing) agent.kill(false);
      agent.start();
    }
  }

  /** Members whose servers the operator has not set up, for want of an answer: whoever looks at the list sees them. */
  #startForgotten(): void {
    const { time, operator } = this.#world;
    operator.startForgotten();
    operator.endDrains();
    time.after(forgottenEveryMs, time.world, 'input', () => this.#startForgotten());
  }

  /** A peer refuses it for its damage. Others may let it in, so that agents would stay with a server of no use. */
  foundOut(machine: Machine): void {
    machine.foundOut = true;
    const { time } = this.#world;
    // Not from within the peer that says it.
    if (this.#healed) time.after(0, time.world, 'input', () => this.#takeAway(machine));
  }

  #machine(target: Target): Machine | undefined {
    const { machines } = this.#world;
    if (typeof target === 'number') return machines.find(({ id }) => id === target);
    const leader = this.#world.leader();
    if (target === 'newest') return machines.at(-1);
    if (target === 'damaged') {
      const members = this.#world.members();
      const damaged = machines.find(({ id, damage }) => damage !== undefined && members.includes(id));
      return damaged ?? this.#machine('follower');
    }
    if (target === 'leader') return machines.find(({ id }) => id === leader) ?? machines.find(({ on }) => on);
    return machines.find(({ id, on }) => on && id !== leader) ?? machines[0];
  }

  /** Ends after `forMs`, or when all is healed. */
  #until(forMs: number, end: () => void): void {
    const { time } = this.#world;
    this.#endings.add(end);
    time.after(forMs, time.world, 'input', () => {
      if (this.#endings.delete(end)) end();
    });
  }

  #startLater(machine: Machine, downMs: number): void {
    const { time } = this.#world;
    time.after(downMs, time.world, 'input', () => machine.start());
  }

  #begin(fault: Fault): void {
    const { faults, trace, machines, agents, agentNetwork, time } = this.#world;
    trace.note(describeFault, fault);
    faults.add(fault.kind === 'partition' ? `partition: ${fault.shape}` : fault.kind);
    switch (fault.kind) {
      case 'crash_all':
      case 'crash_majority': {
        const running = machines.filter(({ on }) => on);
        const count = fault.kind === 'crash_all' ? running.length : Math.floor(running.length / 2) + 1;
        for (const machine of running.slice(0, count)) {
          machine.crash({ silent: false, keepSome: fault.keepSome });
          this.#startLater(machine, fault.downMs);
        }
        return;
      }
      case 'add_member':
      case 'promote_member':
      case 'remove_member':
      case 'replace_member':
      case 'transfer_leader':
      case 'drain_server':
      case 'rebalance':
        this.#change(fault);
        return;
      case 'apply_policies':
      case 'revoke':
      case 'restore':
        this.#world.accessOperator.begin(fault);
        return;
      case 'bad_network':
        this.#badNetwork(fault);
        return;
      case 'ambush':
        this.ambushes.lay(fault);
        return;
      case 'reconnect_storm':
        agentNetwork.reset((agent) => (agent * 7919) % 10 < fault.share * 10);
        return;
      case 'half_open':
        agentNetwork.kill((agent) => (agent * 7919) % 10 < fault.share * 10);
        return;
      case 'kill_agent': {
        const agent = agents.find(({ id }) => id === fault.agent);
        if (fault.how === 'closes') agent?.close();
        else agent?.kill(fault.how === 'vanishes');
        // Closing takes up to two seconds.
        time.after(fault.downMs + 3000, time.world, 'input', () => agent?.start());
        return;
      }
      case 'copy_agent':
        this.#world.copies.start(fault.agent);
        return;
      case 'pause_agent': {
        const life = agents.find(({ id }) => id === fault.agent)?.life;
        if (life === undefined) return;
        time.stop(life);
        this.#until(fault.forMs, () => time.resume(life, true));
        return;
      }
      default: {
        const machine = this.#machine(fault.target);
        if (machine !== undefined) this.#onMachine(fault, machine);
      }
    }
  }

  #change(wish: Wish): void {
    this.#world.operator.begin(wish, 'target' in wish ? this.#machine(wish.target) : undefined);
  }

  #badNetwork(fault: Extract<Fault, { kind: 'bad_network' }>): void {
    const { peers, plan } = this.#world;
    const { loss, duplication, reordering, reorderMs, latencyMs, jitterMs } = fault;
    const bad: NetworkConditions = { loss, duplication, reordering, reorderMs, latencyMs, jitterMs };
    Object.assign(peers.conditions, bad);
    this.#until(fault.forMs, () => Object.assign(peers.conditions, plan.network));
  }

  #onMachine(fault: Exclude<Extract<Fault, { target: Target }>, Wish>, machine: Machine): void {
    const { peers, agents, agentNetwork, machines, time } = this.#world;
    const { disk, clock } = machine;
    switch (fault.kind) {
      case 'crash':
        if (!machine.on) return;
        machine.crash(fault);
        this.#startLater(machine, fault.downMs);
        return;
      case 'restart':
        machine.stop(fault.graceMs, () => this.#startLater(machine, fault.downMs));
        return;
      case 'pause':
        machine.pause(fault.forMs, fault.timersFirst);
        return;
      case 'partition':
        this.#partition(fault, machine.id);
        return;
      case 'reset_links':
        for (const { id } of machines) {
          if (id === machine.id) continue;
          peers.reset(machine.id, id);
          peers.reset(id, machine.id);
        }
        return;
      case 'cut_from_agents': {
        const { place } = machine.member;
        for (const { id } of agents) agentNetwork.block(id, place);
        this.#until(fault.forMs, () => {
          for (const { id } of agents) agentNetwork.unblock(id, place);
        });
        return;
      }
      case 'slow_disk':
        disk.slowness = fault.factor;
        this.#until(fault.forMs, () => {
          disk.slowness = 1;
        });
        return;
      case 'hung_disk':
        disk.hungUntilMs = time.nowMs + fault.forMs;
        return;
      case 'full_disk':
        disk.fullUntilMs = time.nowMs + fault.forMs;
        return;
      case 'failing_disk':
        disk.failNext = true;
        return;
      case 'clock_jump':
        clock.wallOffsetMs += fault.byMs;
        return;
      case 'clock_drift':
        clock.rate = fault.rate;
        return;
      case 'slow_processor':
        clock.lookTakesMs = fault.lookTakesMs;
        this.#until(fault.forMs, () => {
          clock.lookTakesMs = 0;
        });
        return;
      case 'flip_bit':
      case 'wipe_disk':
      case 'older_disk':
      case 'earlier_disk':
      case 'lying_disk':
        this.#damage(fault, machine);
        return;
      default:
        fault satisfies never;
    }
  }

  // ---- damage ----

  /** Never of so many that what was acknowledged could be gone with them. */
  #mayDamage(machine: Machine): boolean {
    return machine.damage === undefined && this.#world.operator.couldSpare(machine, true);
  }

  /**
   * It has been removed, and so have all that it knows of: nobody is left who could tell it. Not one that is not a member
   * yet, nor one that those who stay may still need to learn that it has left.
   */
  #knowsNobody({ id, process }: Machine): boolean {
    const members = this.#world.members();
    const { hasLeft, mayBeForgotten, plan } = this.#world;
    if (!hasLeft(id) || !mayBeForgotten(id) || plan.filesFollow === true) return false;
    const known =
      process === undefined ? [] : membersOf(process.server.inspect().raft.status().configuration);
    return !known.some((one) => members.includes(one));
  }

  /** It is not let in, and would be of no use. */
  #takeAway(machine: Machine): void {
    machine.refused = true;
    machine.crash({ silent: false, keepSome: false });
  }

  #damage(fault: Damaging, target: Machine): void {
    const { faults, machines } = this.#world;
    const may = (one: Machine): boolean => one.process !== undefined && this.#mayDamage(one);
    const machine = may(target) ? target : (machines.find(may) ?? target);
    if (!this.#mayDamage(machine)) {
      faults.add(`${fault.kind}: not possible`);
      return;
    }
    if (!this.#damageBy(fault, machine)) faults.add(`${fault.kind}: not possible`);
  }

  #damageBy(fault: Damaging, machine: Machine): boolean {
    switch (fault.kind) {
      case 'flip_bit':
        return this.#flip(fault.salt, machine);
      case 'lying_disk':
        return this.#lie(fault.forMs, machine);
      case 'earlier_disk':
        return this.#copy(fault.forMs, machine);
      case 'wipe_disk':
      case 'older_disk':
        return this.#goBack(fault.kind, machine);
      default:
        return fault satisfies never;
    }
  }

  /** The disk says that writes are synced, and has forgotten them after the next loss of power. */
  #lie(forMs: number, machine: Machine): boolean {
    const { time, trace } = this.#world;
    const { process, disk } = machine;
    if (process === undefined) return false;
    const { memory } = disk;
    const before = memory.copy();
    machine.damage = 'lying';
    this.#until(forMs, () => {
      machine.crash({ silent: false, keepSome: false });
      if (disk.memory === memory) memory.forgetSince(before);
      trace.say(`server ${machine.id}: its disk forgets what it synced`);
      time.after(200, time.world, 'input', () => machine.start());
    });
    return true;
  }

  #flip(salt: number, machine: Machine): boolean {
    const { trace, plan } = this.#world;
    machine.crash({ silent: false, keepSome: false });
    const random = new Random(plan.seed, `flip/${salt}`);
    const prefix = random.pick(['log/', 'state/', 'hard_state', 'meta/', 'batch/', '']);
    const key = machine.disk.memory.flipBit(prefix, random.next);
    this.#startLater(machine, 200);
    if (key === undefined) return false;
    trace.say(`server ${machine.id}: a bit of ${key} flips`);
    machine.damage = 'flipped';
    return true;
  }

  /** Looks for the right moment until it comes; `isOver`: it cannot come any more, nor after the healing. */
  #when(
    holds: () => boolean,
    isOver: () => boolean,
    then: () => void,
    never: () => void,
    everyMs = momentEveryMs,
  ): void {
    const { time } = this.#world;
    if (this.#healed || isOver()) never();
    else if (holds()) then();
    else time.after(everyMs, time.world, 'input', () => this.#when(holds, isOver, then, never, everyMs));
  }

  /** The members besides it. */
  #others(machine: Machine): readonly Machine[] {
    const members = this.#world.members();
    return this.#world.machines.filter((other) => other !== machine && members.includes(other.id));
  }

  /** Whether everybody else runs, and so says. */
  #allOthers(machine: Machine, say: (other: Machine) => boolean): boolean {
    return this.#others(machine).every(
      (other) => other.process !== undefined && !other.process.life.stopped && say(other),
    );
  }

  /**
   * An empty disk, or one of an earlier run. Only where everybody has applied that the member had the run that is
   * lost: who has not cannot tell, and says so in its documentation. Sometimes followers hear of that run by the log
   * alone, and lose power before they have written down more than that.
   */
  #goBack(kind: 'wipe_disk' | 'older_disk', machine: Machine): boolean {
    const { faults, plan } = this.#world;
    if (machine.process === undefined) return false;
    const random = new Random(plan.seed, `hearsay/${machine.id}/${machine.starts}`);
    const byHearsay = kind === 'older_disk' && random.chance(0.5);
    if (byHearsay) this.#cutFromFollowers(machine);
    if (byHearsay || (kind === 'older_disk' && machine.starts < 2)) {
      machine.crash({ silent: false, keepSome: true });
      this.#startLater(machine, 200);
    }
    const { starts } = machine;
    this.#when(
      () =>
        (machine.starts > 1 || kind === 'wipe_disk') && this.#mayDamage(machine) && this.#isKnown(machine),
      () => machine.starts > starts + 1 || machine.damage !== undefined,
      () => {
        faults.add(`${kind}: put back`);
        machine.lostRun = machine.process?.run;
        machine.knownBetterBy = new Set(this.#others(machine));
        this.#putBack(machine, kind === 'wipe_disk' ? undefined : machine.disk.copies.at(-1));
        this.#restart(machine, byHearsay);
      },
      () => faults.add(`${kind}: not possible`),
      byHearsay ? hearsayEveryMs : momentEveryMs,
    );
    return true;
  }

  /** It reaches the leader alone, and the others do not hear it themselves. */
  #cutFromFollowers({ id }: Machine): void {
    const { peers, machines } = this.#world;
    const leader = this.#world.leader();
    const followers = machines.filter((other) => other.id !== id && other.id !== leader);
    for (const follower of followers) peers.block(id, follower.id);
    this.#until(hearsayForMs, () => {
      for (const follower of followers) peers.unblock(id, follower.id);
    });
  }

  #isKnown(machine: Machine): boolean {
    const { process } = machine;
    if (process === undefined) return false;
    return this.#allOthers(
      machine,
      (other) => other.process?.server.inspect().store.server(machine.id)?.run === process.run,
    );
  }

  /**
   * A supervisor, or somebody who tries again, starts it more often than the others have seen it start, out of touch. They
   * may be started again as well, and have only the log then: surely, if `keepsLogOnly`.
   */
  #restart(machine: Machine, keepsLogOnly = false): void {
    const { plan, time, peers, machines } = this.#world;
    const random = new Random(plan.seed, `restarts/${machine.id}/${machine.starts}`);
    const others = machines.filter((other) => other !== machine);
    for (const { id } of others) peers.block(machine.id, id);
    let atMs = 200;
    for (let again = random.whole(0, 3); again > 0; again -= 1) {
      atMs += random.whole(50, 150);
      time.after(atMs, time.world, 'input', () => {
        if (this.#healed) return;
        machine.crash({ silent: false, keepSome: false });
        machine.start();
      });
    }
    if (keepsLogOnly || random.chance(0.5)) {
      for (const other of others) {
        if (!other.on) continue;
        other.crash({ silent: false, keepSome: !keepsLogOnly });
        this.#startLater(other, random.whole(50, 200));
      }
    }
    this.#until(atMs + random.whole(50, 1000), () => {
      for (const { id } of others) peers.unblock(machine.id, id);
    });
  }

  /**
   * A copy that was made while the server ran. It is put back only where all of its peers were told of more than it has,
   * and have that on their disks: who has heard it at the end of a life may have forgotten it, and says so in its
   * documentation.
   */
  #copy(forMs: number, machine: Machine): boolean {
    const { time, faults, peers, plan } = this.#world;
    const { process, disk } = machine;
    if (process === undefined) return false;
    const copy = disk.memory.copy();
    const copiedTo = process.server.inspect().raft.status().lastIndex;
    const hasHeard = ({ id }: Machine): boolean => peers.appliedAsHeard(machine.id, id) > copiedTo;
    const remembered = new Remembered({
      time,
      heartbeatIntervalMs: plan.heartbeatIntervalMs,
      heardBy: () => (this.#allOthers(machine, hasHeard) ? this.#others(machine) : undefined),
    });
    const putBack = (): void => {
      faults.add('earlier_disk: put back');
      machine.knownBetterBy = remembered.by() ?? new Set();
      this.#putBack(machine, copy);
      this.#restart(machine);
    };
    time.after(forMs, time.world, 'input', () => {
      this.#when(
        () => this.#mayDamage(machine) && remembered.by() !== undefined,
        () => machine.process !== process || machine.damage !== undefined,
        putBack,
        () => faults.add('earlier_disk: not possible'),
      );
    });
    return true;
  }

  /** undefined: nothing. */
  #putBack(machine: Machine, copy: MemoryDisk | undefined): void {
    const { trace } = this.#world;
    machine.crash({ silent: false, keepSome: false });
    machine.damage = copy === undefined ? 'wiped' : 'older';
    trace.say(`server ${machine.id}: its disk is ${copy === undefined ? 'empty' : 'an older copy'}`);
    machine.disk.replace(copy ?? new MemoryDisk(`disk ${machine.id}`));
    // An empty one that would begin a cluster by an old file is told to wait.
    if (copy === undefined) machine.member = { ...machine.member, join: true };
    this.#startLater(machine, 200);
  }

  // ---- partitions ----

  #partition(fault: Extract<Fault, { kind: 'partition' }>, chosen: number): void {
    const { peers, machines, time, plan } = this.#world;
    const random = new Random(plan.seed, `partition/${fault.salt}`);
    const ids = machines.map(({ id }) => id);
    const cuts = cutsOf(fault, chosen, ids, random);
    if (fault.shape !== 'swizzle') {
      for (const [from, to] of cuts) peers.block(from, to);
      this.#until(fault.forMs, () => {
        for (const [from, to] of cuts) peers.unblock(from, to);
      });
      return;
    }
    for (const [from, to] of random.shuffled(cuts)) {
      const cutMs = random.between(0, fault.forMs / 2);
      time.after(cutMs, time.world, 'input', () => {
        if (!this.#healed) peers.block(from, to);
      });
      this.#until(fault.forMs / 2 + random.between(0, fault.forMs / 2), () => peers.unblock(from, to));
    }
  }
}

type Cut = readonly [from: number, to: number];

const cutsOf = (
  { shape }: Extract<Fault, { kind: 'partition' }>,
  chosen: number,
  ids: readonly number[],
  random: Random,
): Cut[] => {
  const all = ids.flatMap((from) => ids.filter((to) => to !== from).map((to): Cut => [from, to]));
  switch (shape) {
    case 'deaf_to':
      return all.filter(([from]) => from === chosen);
    case 'mute_to':
      return all.filter(([, to]) => to === chosen);
    case 'one_way': {
      const others = ids.filter((id) => id !== chosen);
      return others.length === 0 ? [] : [[chosen, random.pick(others)]];
    }
    case 'alone':
      return all.filter(([from, to]) => from === chosen || to === chosen);
    case 'ring': {
      const order = random.shuffled(ids);
      const next = (id: number): number | undefined => order[(order.indexOf(id) + 1) % order.length];
      return all.filter(([from, to]) => next(from) !== to && next(to) !== from);
    }
    case 'split': {
      const side = new Set(random.shuffled(ids).slice(0, random.whole(1, Math.max(1, ids.length - 1))));
      return all.filter(([from, to]) => side.has(from) !== side.has(to));
    }
    case 'bridge':
      return all.filter(([from, to]) => from !== chosen && to !== chosen && (from + to) % 2 === 1);
    case 'swizzle':
      return all.filter(() => random.chance(0.5));
    default:
      return shape satisfies never;
  }
};

/** What each fault does to the world, and how it ends. */
import type { Copies } from './copies.ts';
import type { Agent } from './agent.ts';
import { cutFromAgents, loseConnections, stopAgent, type AgentFaultWorld } from './agent-faults.ts';
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
import { cutsOf } from './partitions.ts';
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

/** What shows at once whether it does anything. */
type AtOnce = Exclude<
  Fault,
  Damaging | { kind: 'partition' | 'ambush' | 'apply_policies' | 'revoke' | 'restore' }
>;

type OnMachine = Exclude<Extract<AtOnce, { target: Target }>, Wish>;

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
  readonly #agentWorld: AgentFaultWorld;
  #healed = false;

  constructor(world: FaultWorld) {
    this.#world = world;
    const until = (forMs: number, end: () => void): void => this.#until(forMs, end);
    this.ambushes = new Ambushes({ ...world, until });
    this.#agentWorld = { ...world, seed: world.plan.seed, until };
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

  /** Counted under its name if anything happened; some only tell later, or by what they wait for. */
  #begin(fault: Fault): void {
    const { trace, accessOperator } = this.#world;
    trace.note(describeFault, fault);
    switch (fault.kind) {
      case 'apply_policies':
      case 'revoke':
      case 'restore':
        accessOperator.begin(fault, (changed) => this.#count(fault.kind, changed));
        return;
      case 'ambush':
        this.ambushes.lay(fault);
        return;
      case 'flip_bit':
      case 'wipe_disk':
      case 'older_disk':
      case 'earlier_disk':
      case 'lying_disk':
        this.#damage(fault);
        return;
      case 'partition':
        this.#count(`partition: ${fault.shape}`, this.#partition(fault));
        return;
      default:
        this.#count(fault.kind, this.#happens(fault));
    }
  }

  #count(name: string, happened: boolean): void {
    this.#world.faults.add(happened ? name : `${name}: not possible`);
  }

  /** Whether it does anything. */
  #happens(fault: AtOnce): boolean {
    const { copies } = this.#world;
    switch (fault.kind) {
      case 'crash_all':
      case 'crash_majority':
        return this.#crashMany(fault);
      case 'add_member':
      case 'promote_member':
      case 'remove_member':
      case 'replace_member':
      case 'transfer_leader':
      case 'drain_server':
      case 'rebalance':
        return this.#change(fault);
      case 'bad_network':
        return this.#badNetwork(fault);
      case 'reconnect_storm':
      case 'half_open':
        return loseConnections(this.#agentWorld, fault);
      case 'kill_agent':
      case 'pause_agent':
        return stopAgent(this.#agentWorld, fault);
      case 'copy_agent':
        copies.start(fault.agent);
        return true;
      default: {
        const machine = this.#machine(fault.target);
        return machine !== undefined && this.#onMachine(fault, machine);
      }
    }
  }

  #crashMany(fault: Extract<Fault, { kind: 'crash_all' | 'crash_majority' }>): boolean {
    const running = this.#world.machines.filter(({ on }) => on);
    const majority = Math.floor(running.length / 2) + 1;
    for (const machine of fault.kind === 'crash_all' ? running : running.slice(0, majority)) {
      machine.crash({ silent: false, keepSome: fault.keepSome });
      this.#startLater(machine, fault.downMs);
    }
    return running.length > 0;
  }

  #change(wish: Wish): boolean {
    const target = 'target' in wish ? this.#machine(wish.target) : undefined;
    return this.#world.operator.begin(wish, target);
  }

  #badNetwork(fault: Extract<Fault, { kind: 'bad_network' }>): boolean {
    const { peers, plan } = this.#world;
    const { loss, duplication, reordering, reorderMs, latencyMs, jitterMs } = fault;
    const bad: NetworkConditions = { loss, duplication, reordering, reorderMs, latencyMs, jitterMs };
    const { network: usual } = plan;
    const isWorse =
      loss > usual.loss ||
      duplication > usual.duplication ||
      reordering > usual.reordering ||
      latencyMs > usual.latencyMs ||
      jitterMs > usual.jitterMs;
    Object.assign(peers.conditions, bad);
    this.#until(fault.forMs, () => Object.assign(peers.conditions, usual));
    return isWorse;
  }

  #onMachine(fault: OnMachine, machine: Machine): boolean {
    const { disk, clock } = machine;
    switch (fault.kind) {
      case 'clock_jump':
        clock.wallOffsetMs += fault.byMs;
        return true;
      case 'clock_drift': {
        const drifts = clock.rate !== fault.rate;
        clock.rate = fault.rate;
        return drifts;
      }
      default:
    }
    if (!machine.on) return false;
    const { time } = this.#world;
    switch (fault.kind) {
      case 'crash':
        machine.crash(fault);
        this.#startLater(machine, fault.downMs);
        return true;
      case 'restart':
        return machine.stop(fault.graceMs, () => this.#startLater(machine, fault.downMs));
      case 'pause':
        return machine.pause(fault.forMs, fault.timersFirst);
      case 'reset_links':
        return this.#resetLinks(machine);
      case 'cut_from_agents':
        cutFromAgents(this.#agentWorld, machine.member.place, fault.forMs);
        return true;
      case 'slow_disk':
        disk.slowness = fault.factor;
        this.#until(fault.forMs, () => {
          disk.slowness = 1;
        });
        return true;
      case 'hung_disk':
        disk.hungUntilMs = time.nowMs + fault.forMs;
        return true;
      case 'full_disk':
        disk.fullUntilMs = time.nowMs + fault.forMs;
        return true;
      case 'failing_disk':
        disk.failNext = true;
        return true;
      case 'slow_processor':
        clock.lookTakesMs = fault.lookTakesMs;
        this.#until(fault.forMs, () => {
          clock.lookTakesMs = 0;
        });
        return true;
      default:
        return fault satisfies never;
    }
  }

  #resetLinks({ id: self }: Machine): boolean {
    const { peers, machines } = this.#world;
    let were = 0;
    for (const { id } of machines) {
      if (id === self) continue;
      if (peers.reset(self, id)) were += 1;
      if (peers.reset(id, self)) were += 1;
    }
    return were > 0;
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

  #damage(fault: Damaging): void {
    const { machines } = this.#world;
    const target = this.#machine(fault.target);
    const may = (one: Machine): boolean => one.process !== undefined && this.#mayDamage(one);
    const machine = target !== undefined && may(target) ? target : machines.find(may);
    if (machine === undefined || !this.#damageBy(fault, machine)) this.#count(fault.kind, false);
  }

  /** Whether it has begun; what it comes to is counted then. */
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
      this.#count('lying_disk', disk.memory === memory && memory.forgetSince(before));
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
    this.#count('flip_bit', true);
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
    const { plan } = this.#world;
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
        this.#count(kind, true);
        machine.lostRun = machine.process?.run;
        machine.knownBetterBy = new Set(this.#others(machine));
        this.#putBack(machine, kind === 'wipe_disk' ? undefined : machine.disk.copies.at(-1));
        this.#restart(machine, byHearsay);
      },
      () => this.#count(kind, false),
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
   * and have that on their disks. A copy that lacks only what peers had not written down yet, or of a run that not all of
   * them have applied, is left out: nobody can tell it from the disk itself, so it is let in and what it acknowledged may
   * be lost, as the README says. What can be recognised is the promise, and all that is judged: for the same reason it
   * stays out of reach of members that are added after the copy was put back, and of those that had left by then.
   */
  #copy(forMs: number, machine: Machine): boolean {
    const { time, peers, plan } = this.#world;
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
      this.#count('earlier_disk', true);
      machine.knownBetterBy = remembered.by() ?? new Set();
      this.#putBack(machine, copy);
      peers.confine(machine.id, new Set(Array.from(machine.knownBetterBy, ({ id }) => id)));
      this.#restart(machine);
    };
    time.after(forMs, time.world, 'input', () => {
      this.#when(
        () => this.#mayDamage(machine) && remembered.by() !== undefined,
        () => machine.process !== process || machine.damage !== undefined,
        putBack,
        () => this.#count('earlier_disk', false),
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

  /** Whether there is anything to cut, among those that run or are members. */
  #partition(fault: Extract<Fault, { kind: 'partition' }>): boolean {
    const { peers, machines, time, plan } = this.#world;
    const random = new Random(plan.seed, `partition/${fault.salt}`);
    const members = this.#world.members();
    const ids = machines.filter(({ id, on }) => on || members.includes(id)).map(({ id }) => id);
    const chosen = this.#machine(fault.target)?.id ?? 0;
    const cuts = cutsOf(fault.shape, chosen, ids, random);
    if (fault.shape !== 'swizzle') {
      for (const [from, to] of cuts) peers.block(from, to);
      this.#until(fault.forMs, () => {
        for (const [from, to] of cuts) peers.unblock(from, to);
      });
      return cuts.length > 0;
    }
    for (const [at, [from, to]] of random.shuffled(cuts).entries()) {
      const cutMs = at === 0 ? 0 : random.between(0, fault.forMs / 2);
      time.after(cutMs, time.world, 'input', () => {
        if (!this.#healed) peers.block(from, to);
      });
      this.#until(fault.forMs / 2 + random.between(0, fault.forMs / 2), () => peers.unblock(from, to));
    }
    return cuts.length > 0;
  }
}

/** A cluster with its agents under virtual time, and everything that judges it. */
import { membersOf } from '../raft/index.ts';
import { compilePolicies } from '../scopes/index.ts';
import type { PeerBatch, PeerRefusal } from '../peers/index.ts';
import type { GatewayEvent, MemberDescription, ServerObserver } from '../server/index.ts';
import type { Storage, WriteBatch } from '../storage/index.ts';
import { AccessOperator } from './access-operator.ts';
import { Agent } from './agent.ts';
import type { Recorded } from './agent-records.ts';
import { AgentNetwork, type SentFrame } from './agent-network.ts';
import { Copies } from './copies.ts';
import { agentRealm, documentOf, nameOf, operatorOf } from './agent-policies.ts';
import {
  AnswerChecks,
  ClusterTimeChecks,
  ConsensusChecks,
  FeedChecks,
  SafetyViolation,
  ServingChecks,
  StateChecks,
  type Sending,
} from './checks/index.ts';
import { VirtualTime, type Life } from './clock.ts';
import { Faults } from './faults.ts';
import { Machine, textOf, type AnswerJudge, type MachineMember, type MachineWorld } from './machine.ts';
import { Operator } from './operator.ts';
import { PeerNetwork } from './peer-network.ts';
import type { Plan } from './plan.ts';
import { Random } from './random.ts';
import { Counts, type Statistics } from './statistics.ts';
import { Trace } from './trace.ts';

export interface Failure {
  readonly check: string;
  readonly problem: string;
  readonly atMs: number;
}

/** The whole state is looked at after every so many entries: it costs as much as the state is large. */
const digestEvery = 64;
/** Raft's whole state, log included, is looked at after every so many events of a server. */
const deepCheckEvery = 32;

const describePlace = (place: number): Omit<MachineMember, 'id' | 'join'> => ({
  place,
  name: `server-${place}`,
  peersAddress: PeerNetwork.addressOf(place),
  agentsUrl: AgentNetwork.endpointOf(place),
});

/** Clients know all places where there will ever be a server, as from a profile that somebody keeps up to date. */
const endpointsOf = ({ servers, faults }: Plan): string[] => {
  const later = faults.filter(({ kind }) => kind === 'add_member' || kind === 'replace_member').length;
  return Array.from({ length: servers.length + later }, (_, at) => AgentNetwork.endpointOf(at + 1));
};

/** As from a profile that nobody keeps up to date. */
const staleEndpointsOf = (agent: number, { servers }: Plan, all: readonly string[]): string[] =>
  [1 + (agent % servers.length), all.length + 1].map((place) => AgentNetwork.endpointOf(place));

export class World {
  readonly plan: Plan;
  readonly time = new VirtualTime();
  readonly trace: Trace;
  /** What happened beside operations and faults. */
  readonly happenings = new Counts();
  readonly operations = new Counts();
  readonly faultCounts = new Counts();
  readonly history: Recorded[] = [];
  readonly consensus = new ConsensusChecks();
  readonly state = new StateChecks();
  readonly clusterTime = new ClusterTimeChecks();
  readonly answers = new AnswerChecks();
  readonly feed = new FeedChecks(this.state);
  readonly #machines: Machine[] = [];
  readonly #machineById = new Map<number, Machine>();
  readonly #initial: readonly MachineMember[];
  #places: number;
  readonly agents: readonly Agent[];
  readonly peers: PeerNetwork;
  readonly agentNetwork: AgentNetwork;
  readonly copies: Copies;
  readonly faults: Faults;
  readonly operator: Operator;
  readonly accessOperator: AccessOperator;
  failure: Failure | undefined;
  /** Filled in the end. */
  searched: Statistics['searched'] = { keys: 0, undecided: 0 };
  readonly #machineWorld: MachineWorld;
  readonly #machineOf = new Map<Life, Machine>();
  /** What the gateways of the servers' processes were told of access last. */
  readonly #told = new Map<Life, Omit<Sending, 'to'>>();
  #looks = 0;

  constructor(plan: Plan, sink?: (line: string) => void) {
    this.plan = plan;
    const { time } = this;
    const trace = new Trace(() => time.nowMs, sink);
    this.trace = trace;
    const random = (name: string): Random => new Random(plan.seed, name);
    this.#initial = plan.servers.map((_, at) => ({ ...describePlace(at + 1), id: at + 1, join: false }));
    this.#places = plan.servers.length;
    this.peers = new PeerNetwork({
      time,
      trace,
      random: random('peer network'),
      counts: this.happenings,
      conditions: { ...plan.network },
      encodes: plan.encodesPeers === true,
      onRefused: (member, by, refusal) => this.#refused(member, by, refusal),
      onSent: (message) => this.judge(() => this.consensus.sent(message)),
      onReceived: (to, from, batch) => this.#received(to, from, batch),
    });
    this.agentNetwork = new AgentNetwork({
      time,
      trace,
      random: random('agent network'),
      counts: this.happenings,
      conditions: { latencyMs: plan.agentsLatencyMs, jitterMs: 0 },
      onSent: (sent) => this.#sent(sent),
      onLeaving: (leaving) => this.#sent(leaving),
    });
    const fail = (check: string, problem: string): void => this.fail(check, problem);
    this.#machineWorld = {
      plan,
      time,
      trace,
      counts: this.happenings,
      peers: this.peers,
      agents: this.agentNetwork,
      policies: compilePolicies(documentOf(plan.agents.length, [], plan.soleConnections)),
      fileOf: (machine) => this.#fileOf(machine),
      random,
      fail,
      observe: (machine) => this.#observe(machine),
      wrapStorage: (machine, storage) => this.#watched(machine, storage),
      judgeAnswers: (machine, server, life) => this.#judgeAnswers(machine, server.inspect().clusterMs, life),
      letIn: (machine, peer) => this.#letIn(machine, peer),
      started: (machine, { life }) => this.#machineOf.set(life, machine),
      ended: (machine) => {
        this.consensus.crashed(machine.id);
      },
    };
    for (const member of this.#initial) this.#addMachine(member);
    const endpoints = endpointsOf(plan);
    this.agents = plan.agents.map(
      (agent) =>
        new Agent(agent, {
          plan,
          time,
          trace,
          operations: this.operations,
          network: this.agentNetwork,
          endpoints: plan.oneServerEach === true ? staleEndpointsOf(agent.id, plan, endpoints) : endpoints,
          random,
          history: this.history,
          answers: this.answers,
          feed: this.feed,
          state: this.state,
          fail,
          judge: (check) => this.judge(check),
          copied: (id) => this.copies.has(id),
        }),
    );
    this.operator = new Operator({
      time,
      trace,
      counts: this.operations,
      network: this.agentNetwork,
      agent: operatorOf(plan.agents.length),
      endpoints,
      random: random('operator'),
      machines: this.#machines,
      configuration: () => this.consensus.configuration,
      mayBeForgotten: (member) => this.consensus.mayBeForgotten(member),
      nextPlace: () => (this.#places += 1),
      describe: (place) => ({ ...describePlace(place), join: true }),
      addMachine: (member) => this.#addMachine(member),
      fail,
    });
    this.accessOperator = new AccessOperator({
      time,
      trace,
      counts: this.operations,
      network: this.agentNetwork,
      agents: plan.agents.length,
      soleConnections: plan.soleConnections === true,
      endpoints,
      random: random('access operator'),
      access: this.state.access,
      fail,
    });
    this.copies = new Copies({ time, trace, network: this.agentNetwork, endpoints, random, fail });
    this.faults = new Faults({
      plan,
      time,
      trace,
      faults: this.faultCounts,
      machines: this.machines,
      agents: this.agents,
      peers: this.peers,
      agentNetwork: this.agentNetwork,
      operator: this.operator,
      accessOperator: this.accessOperator,
      copies: this.copies,
      leader: () => this.leader,
      members: () => this.members,
      hasLeft: (member) => this.consensus.hasLeft(member),
      mayBeForgotten: (member) => this.consensus.mayBeForgotten(member),
    });
    time.afterEvent = (life) => this.#look(life);
  }

  get machines(): readonly Machine[] {
    return this.#machines;
  }

  /** Whom the cluster counts by the last committed configuration, learners included. */
  get members(): readonly number[] {
    const { configuration } = this.consensus;
    return configuration === undefined ? [] : membersOf(configuration);
  }

  #addMachine(member: MachineMember): Machine {
    const machine = new Machine(member, this.#machineWorld);
    this.#machines.push(machine);
    this.#machineById.set(machine.id, machine);
    return machine;
  }

  /** One that joins is told of all that are there. A founder that was never up founds what the others did. */
  #fileOf({ member, begun }: Machine): readonly MemberDescription[] {
    const now = member.join || (this.plan.filesFollow === true && begun);
    const members = now ? this.#machines.map((machine) => machine.member) : this.#initial;
    const present = now ? members.filter(({ id }) => this.members.includes(id)) : members;
    return (present.length === 0 ? this.#initial : present).map(({ id, name, peersAddress, agentsUrl }) => ({
      id,
      name,
      peersAddress,
      agentsUrl,
    }));
  }

  /** Nobody is kept out without a reason. */
  #refused(member: number, by: number, { reason, removed }: PeerRefusal): void {
    if (removed) {
      if (this.members.includes(member))
        this.fail('admission', `server ${by} takes member ${member} for removed: ${reason}`);
      else if (!this.consensus.mayBeForgotten(member))
        this.fail('admission', `server ${by} lets member ${member} go, which may still be needed: ${reason}`);
      return;
    }
    if (!reason.includes('has come back')) return;
    const machine = this.#machineById.get(member);
    if (machine?.damage !== undefined) return this.faults.foundOut(machine);
    this.fail('admission', `server ${by} refuses server ${member}, whose data are as they were: ${reason}`);
  }

  /** Nobody who knows better takes a disk for what it is not. */
  #letIn(machine: Machine, peer: number): void {
    const { id, process } = machine;
    const other = this.#machineById.get(peer);
    if (other?.knownBetterBy.has(machine) === true && machine.damage === undefined)
      this.fail('admission', `server ${id} lets in server ${peer}, whose data lack what it has been told`);
    const lost = other?.lostRun;
    if (lost === undefined || process?.server.inspect().store.server(peer)?.run !== lost) return;
    this.fail('admission', `server ${id} lets in server ${peer}, whose data lack the run that it knows`);
  }

  /** The first failure counts; the run ends with it. */
  fail(check: string, problem: string): void {
    if (this.failure !== undefined) return;
    this.failure = { check, problem, atMs: this.time.nowMs };
    this.trace.say(`FAILURE ${check}: ${problem}`);
  }

  judge(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.failWith(error);
    }
  }

  failWith(error: unknown): void {
    if (error instanceof SafetyViolation) this.fail(error.check, error.message);
    else if (error instanceof Error) this.fail(error.name, textOf(error));
    else this.fail('exception', String(error));
  }

  /** Who leads, as far as servers that run know. */
  get leader(): number | undefined {
    let best: { readonly id: number; readonly term: number } | undefined;
    for (const { id, process } of this.#machines) {
      if (process === undefined) continue;
      const { role, term } = process.server.inspect().raft.invariantView();
      if (role === 'leader' && (best === undefined || term > best.term)) best = { id, term };
    }
    return best?.id;
  }

  begin(): void {
    const { time } = this;
    for (const machine of this.#machines) machine.start();
    for (const agent of this.agents) {
      time.at(agent.plan.startMs, time.world, 'input', () => agent.start());
    }
    this.faults.schedule();
  }

  /** false: something failed. */
  runUntil(untilMs: number): boolean {
    try {
      while (this.failure === undefined && this.time.runNext(untilMs));
    } catch (error) {
      this.failWith(error);
    }
    return this.failure === undefined;
  }

  #look(life: Life): void {
    const machine = this.#machineOf.get(life);
    const process = machine?.process;
    if (machine === undefined || process === undefined || process.life !== life) return;
    const { raft, soft } = process.server.inspect();
    const view = raft.invariantView();
    this.judge(() => {
      this.consensus.observe(view);
      if (soft.role === 'leader' && view.role === 'leader')
        this.clusterTime.leads(machine.id, view.term, view.lastIndex, this.time.nowMs);
      this.#looks += 1;
      if (this.#looks % deepCheckEvery === 0) raft.checkInvariants();
    });
    const { ambushes } = this.faults;
    if (ambushes.waits) ambushes.looked(machine, view);
  }

  /** A server takes the time from whom it takes for the leader. */
  #received(to: number, from: number, { leaderTimeMs }: PeerBatch): void {
    if (leaderTimeMs === undefined) return;
    const server = this.#machineById.get(to)?.process?.server;
    if (server?.inspect().soft.leader === from) this.clusterTime.heard(to, this.time.nowMs);
  }

  /** What was told to the gateways of these, as far as they run. */
  toldTo(machines: readonly Machine[]): readonly Omit<Sending, 'to'>[] {
    return machines.flatMap(({ life }) => (life && this.#told.get(life)) ?? []);
  }

  /** A frame is given to a socket, or leaves it after having had to wait. */
  #sent({ door, agent, codec, bytes }: SentFrame): void {
    const { access } = this.state;
    const told = this.#told.get(door);
    if (!access.active || told === undefined) return;
    const to = { realm: agentRealm, name: nameOf(agent) };
    this.judge(() => access.sent({ ...told, to }, codec.decodeServerFrame(bytes)));
  }

  #toldOfAccess(life: Life, server: string, events: readonly GatewayEvent[]): void {
    for (const event of events)
      if (event.kind === 'access') this.#told.set(life, { server, toldRevision: event.revision });
  }

  /** Having been told, a gateway has closed whom it had to. */
  #kept(life: Life): void {
    const { access } = this.state;
    const told = this.#told.get(life);
    if (!access.active || told === undefined) return;
    for (const agent of this.agentNetwork.agentsOf(life))
      this.judge(() => access.kept({ ...told, to: { realm: agentRealm, name: nameOf(agent) } }));
  }

  #judgeAnswers(machine: Machine, clusterMs: () => number, life: Life): AnswerJudge {
    const name = `server ${machine.id}`;
    const { ambushes } = this.faults;
    this.#told.set(life, { server: name, toldRevision: 0 });
    const checks = new ServingChecks({
      name,
      state: this.state,
      answers: this.answers,
      clusterMs,
    });
    return {
      asked: (requests) => {
        checks.asked(requests);
        if (ambushes.waits && requests.some((one) => one.kind === 'session_open' && !one.resume))
          ambushes.opening(machine);
      },
      noticed: (notices) => checks.noticed(notices),
      told: (events) => {
        this.#toldOfAccess(life, name, events);
        this.judge(() => checks.told(events));
      },
      done: () => this.#kept(life),
    };
  }

  #observe(machine: Machine): ServerObserver {
    return {
      applied: (entry, log, outcome) => {
        if (log === undefined || outcome === undefined) return;
        this.happenings.add('entries applied');
        const server = machine.process?.server;
        const timeMs = server?.inspect().store.timeMs ?? log.timeMs;
        const { changes, results } = outcome;
        this.judge(() => {
          const { index, term } = entry;
          this.clusterTime.applied(index, term, log.timeMs);
          this.state.applied(machine.id, {
            index,
            timeMs,
            changes,
            commands: log.commands,
            results,
          });
          if (server !== undefined && index % digestEvery === 0) {
            this.state.digest(machine.id, index, server.stateDigest());
          }
        });
      },
      restored: ({ index, term }) => {
        this.happenings.add('snapshot installed');
        machine.installs += 1;
        this.trace.say(`server ${machine.id} has installed the snapshot at ${index}@${term}`);
        const server = machine.process?.server;
        if (server !== undefined && index % digestEvery === 0) {
          this.judge(() => this.state.digest(machine.id, index, server.stateDigest()));
        }
      },
    };
  }

  #watched(machine: Machine, storage: Storage): Storage {
    const { id } = machine;
    // Bits that flipped and writes that were forgotten must be found before anything is recovered.
    const lossIsExpected = machine.damage === 'wiped' || machine.damage === 'older';
    this.judge(() => this.consensus.started(id, storage.recovered, lossIsExpected));
    this.clusterTime.started(id);
    return {
      recovered: storage.recovered,
      readState: () => storage.readState(),
      write: (batch: WriteBatch) => {
        this.judge(() => this.consensus.wrote(id, batch));
        if (batch.activate !== undefined) this.faults.ambushes.installing(machine);
        if (batch.compactTo !== undefined) this.happenings.add('log compacted');
        const begunMs = this.time.nowMs;
        return storage.write(batch).then(() => {
          if (batch.sync) machine.syncedAsOfMs = begunMs;
          this.judge(() => this.consensus.written(id, batch.sync));
        });
      },
      openSnapshot: (configuration) => storage.openSnapshot(configuration),
      stageSnapshot: (point) => storage.stageSnapshot(point),
      get failure() {
        return storage.failure;
      },
      close: () => storage.close(),
    };
  }
}

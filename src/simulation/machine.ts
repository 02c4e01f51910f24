/** One server's machine: its disk and clock, and the processes that run on it one after the other. */
import { createGatewayBehind, type LocalGateway } from '../gateway/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import type { Policies } from '../scopes/index.ts';
import {
  noMetrics,
  silentLogger,
  startServer,
  type Gateway,
  type GatewayEvent,
  type GatewayNotice,
  type GatewayPort,
  type GatewayRequest,
  type Logger,
  type MemberDescription,
  type Server,
  type ServerObserver,
} from '../server/index.ts';
import { openMemoryStorage, type Storage } from '../storage/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import { Life, MachineClock, type VirtualTime } from './clock.ts';
import { Disk } from './disk.ts';
import type { PeerNetwork } from './peer-network.ts';
import type { Plan, ServerPlan } from './plan.ts';
import type { Random } from './random.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

/** For leaving a server where connections have lasted as long as they may. */
export const farewellGraceMs = 4000;

const clusterId = '5'.repeat(32);

/** A member with the place where it lives: several members may have had one place, one after the other. */
export interface MachineMember extends MemberDescription {
  readonly place: number;
  /** It waits to be added, instead of beginning a cluster. */
  readonly join: boolean;
}

/** What may be wrong with a machine's data, by a fault. */
export type Damage = 'flipped' | 'wiped' | 'older' | 'lying';

export interface Process {
  readonly life: Life;
  readonly server: Server;
  readonly gateway: LocalGateway;
  readonly diskId: Uint8Array;
  readonly run: number;
}

export interface AnswerJudge {
  asked(requests: readonly GatewayRequest[]): void;
  noticed(notices: readonly GatewayNotice[]): void;
  told(events: readonly GatewayEvent[]): void;
  /** The gateway has done with what it was told. */
  done(): void;
}

export interface MachineWorld {
  readonly plan: Plan;
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly counts: Counts;
  readonly peers: PeerNetwork;
  readonly agents: AgentNetwork;
  readonly policies: Policies;
  /** What the configuration file of this one says of the members. */
  readonly fileOf: (machine: Machine) => readonly MemberDescription[];
  readonly random: (name: string) => Random;
  /** Something that must never happen. */
  readonly fail: (check: string, problem: string) => void;
  /** A new process's view of what it does; told of its writes too. */
  readonly observe: (machine: Machine) => ServerObserver;
  readonly wrapStorage: (machine: Machine, storage: Storage) => Storage;
  /** Judges what it answers. */
  readonly judgeAnswers: (machine: Machine, server: Server, life: Life) => AnswerJudge;
  /** A peer has asked to take part, and may. */
  readonly letIn: (machine: Machine, peer: number) => void;
  /** Its past is gone: what the checks know of it, too. */
  readonly started: (machine: Machine, process: Process) => void;
  readonly ended: (machine: Machine) => void;
}

export class Machine {
  readonly id: number;
  member: MachineMember;
  readonly disk: Disk;
  readonly clock: MachineClock;
  readonly #world: MachineWorld;
  readonly #random: Random;
  readonly #plan: ServerPlan;
  #process: Process | undefined;
  #life: Life | undefined;
  /** Set where a fault has touched its data: it may refuse to start, or be refused, for good. */
  damage: Damage | undefined;
  /** It has been refused for its damage. */
  refused = false;
  /** A peer has found out that its data are not what they were: another one may not have, yet or ever. */
  foundOut = false;
  /** The run that its data have never had: whoever knows of it lets it in no more. */
  lostRun: number | undefined;
  /** Those who have heard more from it than its data have, and remember it on their disks. */
  knownBetterBy: ReadonlySet<Machine> = new Set();
  /** When the last of its synced writes that are done was begun. */
  syncedAsOfMs = -Infinity;
  /** When a process on it was stopped last, to go on later. */
  stoodStillMs = -Infinity;
  /** How often it was told that the cluster has removed it. */
  removals = 0;
  /** How often it has been started. */
  starts = 0;
  /** It has been up once: what counts is on its disk. */
  begun = false;
  /** Snapshots that it was sent and that took the place of its state. */
  installs = 0;
  /** It is being stopped in good order. */
  #stopping = false;

  constructor(member: MachineMember, world: MachineWorld) {
    const { id, place } = member;
    this.id = id;
    this.member = member;
    this.#world = world;
    this.#random = world.random(`machine/${id}`);
    const { servers } = world.plan;
    const plan = servers[(place - 1) % servers.length];
    if (plan === undefined) throw new Error(`no plan for server ${id}`);
    this.#plan = plan;
    this.clock = new MachineClock(world.time, plan.wallOffsetMs);
    this.clock.rate = plan.clockRate;
    this.disk = new Disk({
      name: `disk ${id}`,
      time: world.time,
      random: world.random(`disk/${id}`),
      trace: world.trace,
      counts: world.counts,
      conditions: { latencyMs: plan.diskLatencyMs },
    });
  }

  get process(): Process | undefined {
    return this.#process;
  }

  get life(): Life | undefined {
    return this.#life;
  }

  /** It runs, or is about to. */
  get on(): boolean {
    return this.#life !== undefined;
  }

  start(): void {
    if (this.on || this.refused) return;
    const world = this.#world;
    const life = new Life(`server ${this.id}`);
    this.#life = life;
    this.starts += 1;
    this.disk.copies.push(this.disk.memory.copy());
    if (this.disk.copies.length > 3) this.disk.copies.shift();
    this.disk.attach(life);
    world.trace.say(`server ${this.id} starts`);
    world.time.after(1, life, 'input', () => {
      this.#run(life).catch((error: unknown) => this.#failedToStart(life, error));
    });
  }

  async #run(life: Life): Promise<void> {
    const world = this.#world;
    const { plan } = world;
    const { place: _place, join, ...self } = this.member;
    const opened = await openMemoryStorage({
      identity: { clusterId, member: this.id },
      disk: this.disk.memory,
      makeDiskId: () => this.#random.bytes(16),
    });
    const storage = world.wrapStorage(this, opened);
    const { diskId } = opened.recovered;
    const environment = this.clock.environment(life, this.#random);
    const made: { gateway?: LocalGateway } = {};
    const agents = (): LocalGateway => {
      if (made.gateway === undefined) throw new Error(`server ${this.id} has no gateway yet`);
      return made.gateway;
    };
    let announced = 0;
    const server = await startServer({
      clusterId,
      self,
      members: [...world.fileOf(this).filter(({ id }) => id !== self.id), self],
      join,
      version: 'simulation',
      electionTimeoutMs: plan.electionTimeoutMs,
      heartbeatIntervalMs: plan.heartbeatIntervalMs,
      logRetainBytes: this.#plan.logRetainBytes ?? plan.logRetainBytes,
      raft: plan.raft,
      store: plan.store,
      environment,
      logger: this.#logger,
      metrics: noMetrics,
      onFatal: (error) => this.#fatal(life, error),
      onRemoved: (reason) => this.#removed(life, reason),
      observer: world.observe(this),
      agentsDoor: {
        drain: (graceMs) => agents().drain(graceMs),
        admit: () => agents().admit(),
        sendAway: (moves, graceMs) => agents().sendAway(moves, graceMs),
      },
      storage,
      transport: (accept, run, standing, lineage) => {
        announced = run;
        return world.peers.transport({
          id: this.id,
          name: self.name,
          address: self.peersAddress,
          life,
          accept: (member, presence) => {
            const refusal = accept(member, presence);
            if (refusal === undefined) world.letIn(this, member);
            return refusal;
          },
          presence: {
            run,
            diskId,
            standing: standing(),
            lineage,
            introduction: { name: self.name, address: self.peersAddress },
          },
        });
      },
    });
    if (!life.alive) return;
    const gateway = this.#openGateway(life, server);
    made.gateway = gateway;
    await gateway.listen();
    this.#process = { life, server, gateway, diskId, run: announced };
    this.begun = true;
    world.trace.say(`server ${this.id} is up`);
    world.started(this, this.#process);
  }

  #openGateway(life: Life, server: Server): LocalGateway {
    const { agents, policies, time, plan } = this.#world;
    // The gateway needs the port, and the port the gateway.
    const made: { gateway?: LocalGateway } = {};
    const judge = this.#world.judgeAnswers(this, server, life);
    const outer: Gateway = {
      get connections() {
        return made.gateway?.connections ?? 0;
      },
      deliver: (events: readonly GatewayEvent[]) => {
        judge.told(events);
        made.gateway?.deliver(events);
        judge.done();
      },
    };
    const inner = server.attachGateway(outer);
    const port: GatewayPort = {
      submit: (requests) => {
        judge.asked(requests);
        inner.submit(requests);
      },
      notify: (notices) => {
        judge.noticed(notices);
        inner.notify(notices);
      },
      standing: inner.standing,
    };
    const gateway = createGatewayBehind(agents.doorOf(this.member.place, life), {
      policies,
      port,
      limits: {
        leaderlessMs: 5 * plan.electionTimeoutMs,
        ...(plan.connectionMaxAgeMs !== undefined && {
          connectionMaxAgeMs: plan.connectionMaxAgeMs,
          farewellGraceMs,
        }),
        ...(plan.answerBufferedBytesMax !== undefined && {
          answerBufferedBytesMax: plan.answerBufferedBytesMax,
        }),
      },
      logger: { ...silentLogger, error: (fields, message) => this.#logged(fields, message) },
      clock: {
        nowMs: () => this.clock.monotonicMs(),
        wallMs: () => this.clock.wallMs(),
        every: (intervalMs, callback) => {
          let over = false;
          const again = (): void => {
            time.after(this.clock.worldMs(intervalMs), life, 'timer', () => {
              if (over) return;
              again();
              callback();
            });
          };
          again();
          return () => {
            over = true;
          };
        },
      },
    });
    made.gateway = gateway;
    return gateway;
  }

  /** As the command line does it: a server of no use ends in good order. */
  #removed(life: Life, reason: string): void {
    const { time, trace, counts } = this.#world;
    this.removals += 1;
    counts.add('server told that it was removed');
    trace.say(`server ${this.id} is told: ${reason}`);
    time.after(1, life, 'input', () => this.stop(500, () => undefined));
  }

  get #logger(): Logger {
    return {
      ...silentLogger,
      warn: (_fields, message) => {
        if (message.includes('too slow to lead')) this.#world.counts.add('slow leader hands over');
      },
    };
  }

  #logged(fields: object, message: string): void {
    const error: unknown = 'err' in fields ? fields.err : undefined;
    this.#world.fail('gateway', `server ${this.id}: ${message}: ${textOf(error)}`);
  }

  #failedToStart(life: Life, error: unknown): void {
    if (!life.alive) return;
    const world = this.#world;
    const code = error instanceof FuturestoreError ? error.code : undefined;
    this.#over(false);
    world.trace.say(`server ${this.id} does not start: ${code ?? textOf(error)}`);
    if (this.damage !== undefined && (code === 'DATA_DAMAGED' || code === 'DATA_OUTDATED')) {
      world.counts.add(
        code === 'DATA_DAMAGED' ? 'damage found at the start' : 'outdated disk refused at the start',
      );
      this.refused = true;
      return;
    }
    if (this.#excused(error)) {
      this.#startLater(1000);
      return;
    }
    world.fail('start', `server ${this.id} does not start: ${textOf(error)}`);
  }

  #fatal(life: Life, error: unknown): void {
    if (!life.alive) return;
    const world = this.#world;
    const outdated = error instanceof FuturestoreError && error.code === 'DATA_OUTDATED';
    this.#over(false);
    world.trace.say(`server ${this.id} ends: ${error instanceof Error ? error.message : String(error)}`);
    if (outdated && this.damage !== undefined) {
      world.counts.add('server ended as outdated');
      this.#startLater(1000);
      return;
    }
    if (!this.#excused(error)) {
      world.fail('fatal', `server ${this.id} ended by itself: ${textOf(error)}`);
      return;
    }
    world.counts.add('server ended for its disk');
    this.#startLater(1000);
  }

  #excused(error: unknown): boolean {
    if (!(error instanceof Error)) return false;
    return error.message.includes('(simulated)') || this.#excused(error.cause);
  }

  /** A supervisor starts it again. */
  #startLater(delayMs: number): void {
    this.#world.time.after(delayMs, this.#world.time.world, 'input', () => this.start());
  }

  /** Nothing of the process is left; its agents and peers learn of it, or not. */
  #over(silent: boolean, keepSome = false): void {
    const life = this.#life;
    if (life === undefined) return;
    life.alive = false;
    life.held = undefined;
    this.#life = undefined;
    this.#process = undefined;
    this.#stopping = false;
    this.disk.crash(keepSome);
    this.#world.peers.gone(this.id, silent);
    this.#world.agents.serverGone(this.member.place, silent);
    this.#world.ended(this);
  }

  crash(options: { readonly silent: boolean; readonly keepSome: boolean }): void {
    if (!this.on) return;
    this.#world.trace.say(`server ${this.id} crashes`);
    this.#over(options.silent, options.keepSome);
  }

  /** In good order; calls back when it is over. Crashes if it takes too long. false: there is nothing to stop. */
  stop(graceMs: number, stopped: () => void): boolean {
    const process = this.#process;
    const life = this.#life;
    if (process === undefined || life === undefined || this.#stopping) return false;
    this.#stopping = true;
    this.#world.trace.say(`server ${this.id} is being stopped`);
    const end = (): void => {
      if (!life.alive || this.#life !== life) return;
      this.#over(false);
      stopped();
    };
    process.server
      .drain(graceMs)
      .then(() => process.server.stop())
      .then(() => process.gateway.close())
      .then(end, (error: unknown) => {
        if (!this.#excused(error))
          this.#world.fail('stop', `server ${this.id} did not stop: ${textOf(error)}`);
        end();
      });
    const { world } = this.#world.time;
    this.#world.time.after(graceMs + 10_000, world, 'input', end);
    return true;
  }

  /** false: nothing runs. */
  pause(forMs: number, timersFirst: boolean): boolean {
    const life = this.#life;
    const { time, trace } = this.#world;
    if (life === undefined || life.stopped) return false;
    trace.say(`server ${this.id} stands still`);
    this.stoodStillMs = time.nowMs;
    time.stop(life);
    time.after(forMs, time.world, 'input', () => {
      if (!life.alive) return;
      trace.say(`server ${this.id} goes on`);
      time.resume(life, timersFirst);
    });
    return true;
  }

  resume(): void {
    if (this.#life?.stopped === true) this.#world.time.resume(this.#life, true);
  }
}

export const textOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : `; because: ${textOf(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
};

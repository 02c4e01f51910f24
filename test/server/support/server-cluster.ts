/** Whole servers (loop, raft, store, feed, storage) in one process under virtual time, with scripted faults. */
import type { PeerPresence } from '../../../src/peers/index.ts';
import type { AnswerBody, Member, MemberList, Operation } from '../../../src/protocol/index.ts';
import {
  noMetrics,
  silentLogger,
  startServer,
  type Gateway,
  type GatewayEvent,
  type GatewayPort,
  type GatewayRequest,
  type MemberDescription,
  type OpenedSession,
  type Server,
  type ServerStanding,
  type StartServerOptions,
  type Subject,
} from '../../../src/server/index.ts';
import { MemoryDisk, openMemoryStorage } from '../../../src/storage/index.ts';
import { FakeAgentsDoor } from './agents-door.ts';
import { VirtualNetwork } from './virtual-network.ts';
import { VirtualTime, type ProcessClock } from './virtual-time.ts';

const clusterId = 'c'.repeat(32);

type WithoutNumbers<Request> = Request extends unknown ? Omit<Request, 'connection' | 'request'> : never;
export type AgentRequest = WithoutNumbers<GatewayRequest>;
type Push = Extract<GatewayEvent, { readonly kind: 'push' }>;

/** One connection of an agent to one server, below the wire. */
export class Agent {
  readonly connection: number;
  readonly session: string;
  readonly pushes: Push[] = [];
  /** All that came, and after how much of it there was news of access. */
  readonly log: GatewayEvent[] = [];
  readonly accessAt: number[] = [];
  subject: Subject = {
    principal: { realm: 'agents', name: 'test' },
    credential: { realm: 'agents', name: 'test' },
  };
  readonly #gateway: TestGateway;
  readonly #answers = new Map<number, AnswerBody>();
  #lastRequest = 0;
  #sequence = 0;

  constructor(gateway: TestGateway, connection: number, session: string) {
    this.#gateway = gateway;
    this.connection = connection;
    this.session = session;
  }

  get port(): GatewayPort {
    return this.#gateway.port;
  }

  /** Gives the request's number. */
  send(request: AgentRequest): number {
    this.#lastRequest += 1;
    const numbers = { connection: this.connection, request: this.#lastRequest };
    this.#gateway.port.submit([{ ...request, ...numbers }]);
    return this.#lastRequest;
  }

  open(resume = false): number {
    return this.send({
      kind: 'session_open',
      session: this.session,
      principal: 'agents:test',
      graceMs: 5000,
      resume,
      subject: this.subject,
    });
  }

  write(operations: readonly Operation[], sequence = (this.#sequence += 1)): number {
    const { session } = this;
    return this.send({
      kind: 'write',
      session,
      principal: 'agents:test',
      sequence,
      answeredBelow: 1,
      operations,
    });
  }

  answer(request: number): AnswerBody | undefined {
    return this.#answers.get(request);
  }

  close(): void {
    this.#gateway.port.notify([{ kind: 'closed', connection: this.connection, session: this.session }]);
  }

  received(event: GatewayEvent): void {
    this.log.push(event);
    if (event.kind === 'answer') {
      if (this.#answers.has(event.request)) throw new Error(`request ${event.request} was answered twice`);
      this.#answers.set(event.request, event.body);
    } else if (event.kind === 'push') {
      this.pushes.push(event);
      this.#gateway.port.notify([{ kind: 'delivered', connection: this.connection, bytes: event.bytes }]);
    }
  }
}

type AccessEvent = Extract<GatewayEvent, { readonly kind: 'access' }>;

class TestGateway implements Gateway {
  readonly access: AccessEvent[] = [];
  readonly agents = new Map<number, Agent>();
  readonly port: GatewayPort;
  readonly ticketKeys: Uint8Array[] = [];
  /** Said last, and when. */
  standing: ServerStanding;
  standingAtMs: number;
  readonly #nowMs: () => number;
  readonly sessionsOpened: OpenedSession[] = [];

  constructor(server: Server, nowMs: () => number) {
    this.#nowMs = nowMs;
    this.port = server.attachGateway(this);
    this.standing = this.port.standing;
    this.standingAtMs = nowMs();
  }

  get connections(): number {
    return this.agents.size;
  }

  deliver(events: readonly GatewayEvent[]): void {
    for (const event of events) {
      if (event.kind === 'access') {
        this.access.push(event);
        for (const agent of this.agents.values()) agent.accessAt.push(agent.log.length);
      } else if (event.kind === 'ticket_keys') this.ticketKeys.push(event.keys);
      else if (event.kind === 'standing') {
        this.standing = event.standing;
        this.standingAtMs = this.#nowMs();
      } else if (event.kind === 'progress') {
        for (const connection of event.connections) this.agents.get(connection)?.received(event);
      } else if (event.kind === 'sessions_opened') this.sessionsOpened.push(...event.sessions);
      else this.agents.get(event.connection)?.received(event);
    }
  }
}

interface Running {
  readonly server: Server;
  readonly gateway: TestGateway;
  readonly presence: PeerPresence;
  readonly door: FakeAgentsDoor;
}

export interface StartOptions {
  /** On an empty disk: wait to be added. */
  readonly join?: boolean;
  /** The members that its file names, itself included. Default: those that the cluster began with, and itself. */
  readonly file?: readonly number[];
  /** Of the peer protocol. Default 6. */
  readonly version?: number;
}

export const describeMember = (id: number, name = `server-${id}`): MemberDescription => ({
  id,
  name,
  peersAddress: `s${id}:7422`,
  agentsUrl: `wss://s${id}`,
});

export interface ServerClusterOptions {
  readonly servers: number;
  readonly seed?: number;
  readonly logRetainBytes?: number;
  readonly raft?: StartServerOptions['raft'];
  /** Takes what the servers log as information. */
  readonly onInfo?: (id: number, fields: Readonly<Record<string, unknown>>) => void;
}

export class ServerCluster {
  readonly time: VirtualTime;
  readonly network: VirtualNetwork;
  readonly ids: readonly number[];
  readonly disks = new Map<number, MemoryDisk>();
  readonly clocks = new Map<number, ProcessClock>();
  /** Those that were told that the cluster has removed them. */
  readonly removed = new Set<number>();
  readonly fatal: { readonly id: number; readonly error: unknown }[] = [];
  readonly #running = new Map<number, Running>();
  readonly #options: ServerClusterOptions;
  #lastConnection = 0;

  constructor(options: ServerClusterOptions) {
    this.#options = options;
    this.time = new VirtualTime(options.seed ?? 1);
    this.network = new VirtualNetwork(this.time);
    this.ids = Array.from({ length: options.servers }, (_, index) => index + 1);
  }

  static async start(options: ServerClusterOptions): Promise<ServerCluster> {
    const cluster = new ServerCluster(options);
    for (const id of cluster.ids) await cluster.start(id);
    await cluster.time.until('there is a leader', () => cluster.leader !== undefined);
    return cluster;
  }

  async start(id: number, { join = false, file, version = 7 }: StartOptions = {}): Promise<void> {
    const disk = this.disks.get(id) ?? new MemoryDisk();
    this.disks.set(id, disk);
    const clock = this.clocks.get(id) ?? { wallOffsetMs: 0, stoppedUntilMs: 0 };
    this.clocks.set(id, clock);
    const named = new Set(file ?? this.ids).add(id);
    const storage = await openMemoryStorage({ identity: { clusterId, member: id }, disk });
    const { diskId } = storage.recovered;
    const door = new FakeAgentsDoor();
    let presence: PeerPresence = { run: 0, diskId };
    const { name, peersAddress: address } = describeMember(id);
    const server = await startServer({
      clusterId,
      self: describeMember(id),
      members: [...named].map((member) => describeMember(member)),
      join,
      version: 'test',
      electionTimeoutMs: 1000,
      heartbeatIntervalMs: 100,
      logRetainBytes: this.#options.logRetainBytes ?? 64 * 1024 * 1024,
      ...(this.#options.raft && { raft: this.#options.raft }),
      environment: this.time.environment(clock),
      logger: {
        ...silentLogger,
        info: (fields: object) => this.#options.onInfo?.(id, { ...fields }),
      },
      metrics: noMetrics,
      onFatal: (error) => {
        this.fatal.push({ id, error });
        this.network.crash(id);
        this.#running.delete(id);
      },
      onRemoved: () => this.removed.add(id),
      agentsDoor: door,
      storage,
      transport: (acceptPeer, run, standing, lineage) => {
        presence = { run, diskId };
        if (version >= 2) presence = { ...presence, standing: standing(), introduction: { name, address } };
        if (version >= 3) presence = { ...presence, lineage };
        const takesUp = (work: () => void): void => this.time.takeUp(clock, work);
        return this.network.transport(id, { presence, acceptPeer, takesUp, version });
      },
    });
    const gateway = new TestGateway(server, () => this.time.nowMs);
    this.#running.set(id, { server, gateway, presence, door });
  }

  /** What a server announces to its peers. */
  presence(id: number): PeerPresence {
    return this.#get(id).presence;
  }

  /** As its gateway knows it now. */
  standing(id: number): ServerStanding {
    const { standing, standingAtMs } = this.#get(id).gateway;
    const { leaderlessMs } = standing;
    return {
      ...standing,
      leaderlessMs: leaderlessMs === 0 ? 0 : leaderlessMs + this.time.nowMs - standingAtMs,
    };
  }

  /** What it has told its gateway, in order. */
  ticketKeys(id: number): readonly Uint8Array[] {
    return this.#get(id).gateway.ticketKeys;
  }

  #get(id: number): Running {
    const running = this.#running.get(id);
    if (!running) throw new Error(`server ${id} is not running`);
    return running;
  }

  get running(): readonly number[] {
    return [...this.#running.keys()];
  }

  /** The process ends in order. */
  async stop(id: number): Promise<void> {
    const { server } = this.#get(id);
    let stopped = false;
    const stopping = server.stop().then(() => {
      stopped = true;
    });
    await this.time.until(`server ${id} has stopped`, () => stopped);
    await stopping;
    this.#running.delete(id);
  }

  /** The process dies; what its disk had not synced is lost. */
  crash(id: number): void {
    this.network.crash(id);
    this.disks.get(id)?.crash();
    this.#running.delete(id);
  }

  server(id: number): Server {
    return this.#get(id).server;
  }

  /** What the server has asked of its process's gateways. */
  door(id: number): FakeAgentsDoor {
    return this.#get(id).door;
  }

  /** What the server's gateway was told of access, in order. */
  access(id: number): readonly AccessEvent[] {
    return this.#get(id).gateway.access;
  }

  /** Likewise of sessions. */
  sessionsOpened(id: number): readonly OpenedSession[] {
    return this.#get(id).gateway.sessionsOpened;
  }

  agent(id: number, session = `${this.#lastConnection + 1}`.padStart(32, '0')): Agent {
    const running = this.#get(id);
    this.#lastConnection += 1;
    const agent = new Agent(running.gateway, this.#lastConnection, session);
    running.gateway.agents.set(agent.connection, agent);
    return agent;
  }

  // ---- members ----

  /** What a server says of the members. */
  async list(at: number): Promise<MemberList> {
    const agent = this.agent(at);
    const body = await this.answer(agent, agent.send({ kind: 'member_list' }));
    if (body.kind !== 'members') throw new Error(`the list of members was answered ${JSON.stringify(body)}`);
    return body.list;
  }

  async member(at: number, id: number): Promise<Member | undefined> {
    return (await this.list(at)).members.find((member) => member.id === id);
  }

  /** Asks for a change until it is in the log; gives the member's id. A refusal is thrown. */
  async change(at: number, request: AgentRequest): Promise<number> {
    const agent = this.agent(at);
    const body = await this.answer(agent, agent.send(request));
    if (body.kind === 'failed') throw new Error(`${body.failure.code}: ${body.failure.message}`);
    if (body.kind !== 'member_changed') throw new Error(`a change was answered ${JSON.stringify(body)}`);
    return body.member;
  }

  add(at: number, id: number, replaces?: number): Promise<number> {
    const { name, peersAddress, agentsUrl } = describeMember(id);
    return this.change(at, {
      kind: 'member_add',
      name,
      peersAddress,
      agentsUrl,
      ...(replaces !== undefined && { replaces }),
    });
  }

  promote(at: number, member: number): Promise<number> {
    return this.change(at, { kind: 'member_promote', member });
  }

  remove(at: number, member: number): Promise<number> {
    return this.change(at, { kind: 'member_remove', member });
  }

  /** Waits until the changes that are wanted are carried out, as this server sees it. */
  async settled(at: number, withinMs = 10_000): Promise<MemberList> {
    const endMs = this.time.nowMs + withinMs;
    for (;;) {
      const list = await this.list(at);
      if (!list.changePending) return list;
      if (this.time.nowMs >= endMs)
        throw new Error(`the change was not carried out within ${withinMs} ms: ${JSON.stringify(list)}`);
      await this.time.run(20);
    }
  }

  /** Adds a server with an empty disk and makes it a voter. */
  async grow(at: number, id: number): Promise<void> {
    const given = await this.add(at, id);
    if (given !== id) throw new Error(`the new member is ${given} instead of ${id}`);
    await this.start(id, { join: true });
    await this.settled(at);
    for (let patience = 0; ; patience += 1) {
      const member = await this.member(at, id);
      if (member?.reachable === true && member.standing === 'learner' && member.lag < 100) break;
      if (patience > 500) throw new Error(`member ${id} does not catch up: ${JSON.stringify(member)}`);
      await this.time.run(20);
    }
    await this.promote(at, id);
    await this.settled(at);
  }

  /** The leader that a majority follows. */
  get leader(): number | undefined {
    for (const [id, { server }] of this.#running) {
      if (server.status().role !== 'leader') continue;
      const { term } = server.status();
      const followers = [...this.#running.values()].filter(
        (other) => other.server.status().leader === id && other.server.status().term === term,
      );
      if (followers.length * 2 > this.ids.length) return id;
    }
    return undefined;
  }

  /** Who leads the newest term, whoever follows; undefined: nobody does. */
  get leads(): number | undefined {
    const leaders = [...this.#running]
      .map(([id, { server }]) => ({ id, ...server.status() }))
      .filter(({ role }) => role === 'leader')
      .sort((a, b) => b.term - a.term);
    return leaders[0]?.id;
  }

  get followers(): number[] {
    const { leader } = this;
    return this.ids.filter((id) => id !== leader && this.#running.has(id));
  }

  async newLeader(): Promise<number> {
    await this.time.until('there is a leader', () => this.leader !== undefined);
    return this.leader as number;
  }

  /** Waits for a request's answer. */
  async answer(agent: Agent, request: number, withinMs?: number): Promise<AnswerBody> {
    await this.time.until(
      `request ${request} is answered`,
      () => agent.answer(request) !== undefined,
      withinMs,
    );
    return agent.answer(request) as AnswerBody;
  }

  /** All running servers have applied the same and have the same state. */
  async converged(): Promise<void> {
    const digests = (): Set<string> =>
      new Set([...this.#running.values()].map(({ server }) => server.stateDigest()));
    const applied = (): Set<number> =>
      new Set([...this.#running.values()].map(({ server }) => server.status().appliedIndex));
    await this.time.until('all servers have applied the same', () => applied().size === 1);
    if (digests().size !== 1) throw new Error('servers that have applied the same log have different states');
  }
}

type Resolve = Extract<Operation, { readonly kind: 'resolve' }>;

export const resolveOperation = (key: string, value: string, more: Partial<Resolve> = {}): Operation => ({
  kind: 'resolve',
  key,
  preconditions: {},
  value: Buffer.from(value),
  contentType: 'text/plain; charset=utf-8',
  sensitive: false,
  supersede: false,
  ...more,
});

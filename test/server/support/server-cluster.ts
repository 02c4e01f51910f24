/** Whole servers (loop, raft, store, feed, storage) in one process under virtual time, with scripted faults. */
import type { AnswerBody, Operation } from '../../../src/protocol/index.ts';
import {
  noMetrics,
  silentLogger,
  startServer,
  type Gateway,
  type GatewayEvent,
  type GatewayPort,
  type GatewayRequest,
  type Server,
  type StartServerOptions,
} from '../../../src/server/index.ts';
import { MemoryDisk, openMemoryStorage } from '../../../src/storage/index.ts';
import { VirtualNetwork } from './virtual-network.ts';
import { VirtualTime } from './virtual-time.ts';

const clusterId = 'c'.repeat(32);

type WithoutNumbers<Request> = Request extends unknown ? Omit<Request, 'connection' | 'request'> : never;
export type AgentRequest = WithoutNumbers<GatewayRequest>;
type Push = Extract<GatewayEvent, { readonly kind: 'push' }>;

/** One connection of an agent to one server, below the wire. */
export class Agent {
  readonly connection: number;
  readonly session: string;
  readonly pushes: Push[] = [];
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
    if (event.kind === 'answer') {
      if (this.#answers.has(event.request)) throw new Error(`request ${event.request} was answered twice`);
      this.#answers.set(event.request, event.body);
    } else if (event.kind === 'push') {
      this.pushes.push(event);
      this.#gateway.port.notify([{ kind: 'delivered', connection: this.connection, bytes: event.bytes }]);
    }
  }
}

class TestGateway implements Gateway {
  readonly agents = new Map<number, Agent>();
  readonly port: GatewayPort;

  constructor(server: Server) {
    this.port = server.attachGateway(this);
  }

  get connections(): number {
    return this.agents.size;
  }

  deliver(events: readonly GatewayEvent[]): void {
    for (const event of events) this.agents.get(event.connection)?.received(event);
  }
}

interface Running {
  readonly server: Server;
  readonly gateway: TestGateway;
  readonly identity: { readonly run: number; readonly diskId: Uint8Array };
}

export interface ServerClusterOptions {
  readonly servers: number;
  readonly seed?: number;
  readonly logRetainBytes?: number;
  readonly raft?: StartServerOptions['raft'];
}

export class ServerCluster {
  readonly time: VirtualTime;
  readonly network: VirtualNetwork;
  readonly ids: readonly number[];
  readonly disks = new Map<number, MemoryDisk>();
  readonly clocks = new Map<number, { wallOffsetMs: number }>();
  readonly fatal: { readonly id: number; readonly error: unknown }[] = [];
  readonly #running = new Map<number, Running>();
  readonly #options: ServerClusterOptions;
  #lastConnection = 0;

  constructor(options: ServerClusterOptions) {
    this.#options = options;
    this.time = new VirtualTime(options.seed ?? 1);
    this.network = new VirtualNetwork(this.time);
    this.ids = Array.from({ length: options.servers }, (_, index) => index + 1);
    for (const id of this.ids) {
      this.disks.set(id, new MemoryDisk());
      this.clocks.set(id, { wallOffsetMs: 0 });
    }
  }

  static async start(options: ServerClusterOptions): Promise<ServerCluster> {
    const cluster = new ServerCluster(options);
    for (const id of cluster.ids) await cluster.start(id);
    await cluster.time.until('there is a leader', () => cluster.leader !== undefined);
    return cluster;
  }

  async start(id: number): Promise<void> {
    const disk = this.disks.get(id) as MemoryDisk;
    const members = this.ids.map((member) => ({
      id: member,
      name: `server-${member}`,
      agentsUrl: `wss://s${member}`,
    }));
    const storage = await openMemoryStorage({ identity: { clusterId, member: id }, disk });
    const { diskId } = storage.recovered;
    let announced = 0;
    const server = await startServer({
      clusterId,
      self: members[id - 1] as (typeof members)[number],
      members,
      version: 'test',
      electionTimeoutMs: 1000,
      heartbeatIntervalMs: 100,
      logRetainBytes: this.#options.logRetainBytes ?? 64 * 1024 * 1024,
      ...(this.#options.raft && { raft: this.#options.raft }),
      environment: this.time.environment(this.clocks.get(id) as { wallOffsetMs: number }),
      logger: silentLogger,
      metrics: noMetrics,
      onFatal: (error) => {
        this.fatal.push({ id, error });
        this.network.crash(id);
        this.#running.delete(id);
      },
      storage,
      transport: (acceptPeer, run) => {
        announced = run;
        return this.network.transport(id, { run, diskId, acceptPeer });
      },
    });
    this.#running.set(id, { server, gateway: new TestGateway(server), identity: { run: announced, diskId } });
  }

  /** The run and disk that a server announces to its peers. */
  identity(id: number): { readonly run: number; readonly diskId: Uint8Array } {
    const running = this.#running.get(id);
    if (!running) throw new Error(`server ${id} is not running`);
    return running.identity;
  }

  /** The process dies; what its disk had not synced is lost. */
  crash(id: number): void {
    this.network.crash(id);
    this.disks.get(id)?.crash();
    this.#running.delete(id);
  }

  server(id: number): Server {
    const running = this.#running.get(id);
    if (!running) throw new Error(`server ${id} is not running`);
    return running.server;
  }

  agent(id: number, session = `${this.#lastConnection + 1}`.padStart(32, '0')): Agent {
    const running = this.#running.get(id);
    if (!running) throw new Error(`server ${id} is not running`);
    this.#lastConnection += 1;
    const agent = new Agent(running.gateway, this.#lastConnection, session);
    running.gateway.agents.set(agent.connection, agent);
    return agent;
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

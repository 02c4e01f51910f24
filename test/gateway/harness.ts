/** A real gateway on loopback, a server that does what the test says, agents over real wss, and time that stands still. */
import { WebSocket } from 'ws';
import type { RawData } from 'ws';
import { createGateway, gatewayLimits } from '../../src/gateway/index.ts';
import type { LocalGateway, GatewayClock, GatewayLimits, GatewayOptions } from '../../src/gateway/index.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import type {
  AnswerBody,
  ClientFrame,
  FrameCodec,
  ReceivedServerFrame,
  Request,
  RequestBody,
} from '../../src/protocol/index.ts';
import { compilePolicies } from '../../src/scopes/index.ts';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import type { GatewayEvent, GatewayNotice, GatewayPort, GatewayRequest } from '../../src/server/index.ts';
import { issue, makeAuthority } from './certificates.ts';
import type { Authority, Credentials } from './certificates.ts';

export const hello = { clientName: 'test', clientVersion: '1' };

/** Resolves promises when what they wait for has come to be; asked after every change. */
class Waiters {
  readonly #waiting = new Set<() => void>();

  changed(): void {
    for (const check of this.#waiting) check();
  }

  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const check = (): void => {
        if (!holds()) return;
        this.#waiting.delete(check);
        resolve();
      };
      this.#waiting.add(check);
      check();
    });
  }
}

export class FakePort implements GatewayPort {
  readonly identity = {
    clusterId: 'c0ffee',
    epoch: 3,
    serverId: 2,
    serverName: 'server-2',
    endpoints: ['wss://one:7421', 'wss://two:7421'],
  };
  readonly submissions: (readonly GatewayRequest[])[] = [];
  readonly notices: GatewayNotice[] = [];
  readonly notifications: (readonly GatewayNotice[])[] = [];
  readonly #waiters = new Waiters();
  /** What the server says of all subscriptions when it is asked; undefined: they are behind. */
  served: number | undefined = undefined;
  /** To the gateway. */
  deliver: (events: readonly GatewayEvent[]) => void = () => undefined;
  /** Called for each submission, after it has been noted. */
  onSubmit: (requests: readonly GatewayRequest[]) => void = () => undefined;

  get requests(): GatewayRequest[] {
    return this.submissions.flat();
  }

  submit(requests: readonly GatewayRequest[]): void {
    this.submissions.push(requests);
    this.onSubmit(requests);
    this.#waiters.changed();
  }

  notify(notices: readonly GatewayNotice[]): void {
    this.notifications.push(notices);
    this.notices.push(...notices);
    for (const notice of notices) {
      const { served } = this;
      if (notice.kind !== 'progress_wanted' || served === undefined) continue;
      const { connections } = notice;
      setImmediate(() => this.deliver([{ kind: 'progress', connections, revision: served }]));
    }
    this.#waiters.changed();
  }

  readonly standing = { identity: this.identity, revision: 41, leaderlessMs: 0 };

  /** The server has known no leader for so long. */
  withoutLeader(leaderlessMs: number): void {
    this.deliver([{ kind: 'standing', standing: { ...this.standing, leaderlessMs } }]);
  }

  until(holds: (port: this) => boolean): Promise<void> {
    return this.#waiters.until(() => holds(this));
  }

  /** Bytes given back for pushes. */
  delivered(connection?: number): number {
    let sum = 0;
    for (const notice of this.notices) {
      if (notice.kind === 'delivered' && (connection === undefined || notice.connection === connection))
        sum += notice.bytes;
    }
    return sum;
  }
}

export class ManualClock implements GatewayClock {
  readonly #timers = new Set<{ readonly intervalMs: number; readonly callback: () => void; dueMs: number }>();
  #nowMs = 1_000;
  readonly #wallStartMs = Date.now();
  wallAheadMs = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#wallStartMs + this.#nowMs + this.wallAheadMs;
  }

  every(intervalMs: number, callback: () => void): () => void {
    const timer = { intervalMs, callback, dueMs: this.#nowMs + intervalMs };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const next = [...this.#timers].reduce<
        { callback: () => void; dueMs: number; intervalMs: number } | undefined
      >((best, timer) => (best === undefined || timer.dueMs < best.dueMs ? timer : best), undefined);
      if (next === undefined || next.dueMs > endMs) break;
      this.#nowMs = next.dueMs;
      next.dueMs += next.intervalMs;
      next.callback();
    }
    this.#nowMs = endMs;
  }
}

interface LogLine {
  readonly level: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

export class LogBook {
  readonly lines: LogLine[] = [];
  readonly #waiters = new Waiters();

  debug = this.#at('debug');
  info = this.#at('info');
  warn = this.#at('warn');
  error = this.#at('error');

  until(holds: (lines: readonly LogLine[]) => boolean): Promise<void> {
    return this.#waiters.until(() => holds(this.lines));
  }

  #at(level: string): (fields: object, message: string) => void {
    return (fields, message) => {
      this.lines.push({ level, fields: { ...fields }, message });
      this.#waiters.changed();
    };
  }
}

class Counts {
  readonly all: string[] = [];
  refused(code: string): void {
    this.all.push(`refused ${code}`);
  }
  connectionClosed(code: number): void {
    this.all.push(`closed ${code}`);
  }
  turnedAway(stage: string): void {
    this.all.push(`turned away ${stage}`);
  }
}

/** Of the realms puppet and lab; more of them are the test's. */
export const policyDocument = ({ puppet, lab }: World, realms: PolicyDocument['realms']): PolicyDocument => ({
  realms: {
    puppet: { tls: { issuer: puppet.pem, identity: 'cn' }, vars: { node: 'cn' } },
    lab: { tls: { issuer: lab.pem, identity: 'cn' }, vars: { node: 'cn' } },
    ...realms,
  },
  policies: {
    agent: [
      { allow: ['get', 'await', 'list', 'subscribe'], on: ['nodes/${node}/**', 'shared/**'] },
      { deny: ['list', 'subscribe'], on: 'shared/secret/**' },
      { allow: ['declare', 'resolve', 'reject', 'delete', 'touch'], on: 'nodes/${node}/out/**' },
      { allow: ['resolve'], on: 'nodes/${node}/small/**', value_max: '16B' },
    ],
    operator: [
      { allow: ['cluster.status', 'cluster.drain', 'cluster.rebalance'] },
      { allow: ['member.list', 'member.change', 'snapshot.save'] },
    ],
    onlooker: [{ allow: ['*'], on: '**' }, { allow: ['member.list'] }],
  },
  bindings: [
    { realm: 'puppet', policies: ['agent'] },
    { realm: 'puppet', principal: 'admin', policies: ['operator'] },
    { realm: 'puppet', principal: 'onlooker', policies: ['onlooker'] },
    { realm: 'lab', policies: ['agent'] },
    ...Object.keys(realms)
      .filter((realm) => realm !== 'puppet' && realm !== 'lab')
      .map((realm) => ({ realm, policies: ['agent'] })),
  ],
});

export interface World {
  readonly puppet: Authority;
  readonly lab: Authority;
  readonly stranger: Authority;
  readonly server: Credentials;
  readonly serverAuthority: Authority;
  readonly web1: Credentials;
}

let world: Promise<World> | undefined;

const makeWorld = async (): Promise<World> => {
  const [puppet, lab, stranger, serverAuthority] = await Promise.all([
    makeAuthority('CN=Puppet CA'),
    // The same name as the other realm's: only the key tells them apart.
    makeAuthority('CN=Puppet CA'),
    makeAuthority('CN=Stranger'),
    makeAuthority('CN=Servers'),
  ]);
  const [server, web1] = await Promise.all([
    issue(serverAuthority, { subject: 'CN=server-2', server: true }),
    issue(puppet, { subject: 'CN=web1' }),
  ]);
  return { puppet, lab, stranger, server, serverAuthority, web1 };
};

/** The certificates, made once for a test file. */
export const theWorld = (): Promise<World> => (world ??= makeWorld());

export interface Rig {
  readonly world: World;
  readonly gateway: LocalGateway;
  readonly port: FakePort;
  readonly tcpPort: number;
  readonly clock: ManualClock;
  readonly log: LogBook;
  readonly counts: Counts;
  /** Connected, TLS and WebSocket, as puppet:web1 unless told otherwise. */
  agent(how?: AgentHow): Promise<TestAgent>;
  /** Connected and welcomed. */
  greeted(how?: AgentHow): Promise<TestAgent>;
  close(): Promise<void>;
}

interface AgentHow {
  /** 'none': without a certificate. */
  readonly credentials?: Credentials | 'none';
  readonly token?: string;
  readonly codec?: FrameCodec;
  /** What it offers beside its subprotocol. */
  readonly offers?: readonly string[];
}

export const startGateway = async (
  limits: Partial<GatewayLimits> = {},
  more: Partial<GatewayOptions> = {},
  realms: PolicyDocument['realms'] = {},
): Promise<Rig> => {
  const made = await theWorld();
  const port = new FakePort();
  const clock = new ManualClock();
  const log = new LogBook();
  const counts = new Counts();
  const gateway = createGateway({
    listen: { host: '127.0.0.1', port: 0 },
    ...made.server,
    policies: compilePolicies(policyDocument(made, realms)),
    port,
    limits: { ...gatewayLimits, closeMs: 300, ...limits },
    clock,
    logger: log,
    metrics: counts,
    ...more,
  });
  port.deliver = (events) => gateway.deliver(events);
  const { port: tcpPort } = await gateway.listen();
  const agents: TestAgent[] = [];
  const agent = async (how: AgentHow = {}): Promise<TestAgent> => {
    const codec = how.codec ?? protobufCodec;
    const ws = new WebSocket(`wss://127.0.0.1:${tcpPort}/`, [codec.subprotocol, ...(how.offers ?? [])], {
      ca: made.serverAuthority.pem,
      ...(how.credentials === 'none' ? {} : (how.credentials ?? made.web1)),
      perMessageDeflate: false,
    });
    const connected = new TestAgent(ws, codec);
    agents.push(connected);
    await connected.opened;
    return connected;
  };
  return {
    world: made,
    gateway,
    port,
    tcpPort,
    clock,
    log,
    counts,
    agent,
    greeted: async (how) => {
      const connected = await agent(how);
      const { token } = how ?? {};
      connected.send({ hello: { ...hello, ...(token !== undefined && { token }) }, requests: [] });
      await connected.frame();
      return connected;
    },
    close: async () => {
      for (const each of agents) each.ws.terminate();
      await gateway.close();
    },
  };
};

export interface Closed {
  readonly code: number;
  readonly reason: string;
}

export class TestAgent {
  readonly ws: WebSocket;
  readonly codec: FrameCodec;
  readonly opened: Promise<void>;
  readonly closed: Promise<Closed>;
  readonly frames: ReceivedServerFrame[] = [];
  readonly #waiters = new Waiters();
  #read = 0;
  #lastRequest = 0;

  constructor(ws: WebSocket, codec: FrameCodec) {
    this.ws = ws;
    this.codec = codec;
    this.opened = new Promise((resolve, reject) => {
      ws.once('open', resolve);
      ws.once('error', reject);
    });
    this.closed = new Promise((resolve) => {
      ws.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    ws.on('error', () => undefined);
    ws.on('message', (data: RawData, isBinary) => {
      if (isBinary !== codec.binary) throw new Error('the kind of message does not fit the subprotocol');
      this.frames.push(codec.decodeServerFrame(data as Buffer));
      this.#waiters.changed();
    });
  }

  send(frame: ClientFrame): void {
    this.sendRaw(this.codec.encodeClientFrame(frame));
  }

  sendRaw(bytes: Uint8Array | string, binary = this.codec.binary): void {
    this.ws.send(bytes, { binary });
  }

  /** Sends one request; gives its id. */
  request(body: RequestBody, id = ++this.#lastRequest): number {
    this.#lastRequest = Math.max(id, this.#lastRequest);
    const request: Request = { id, body };
    this.send({ requests: [request] });
    return id;
  }

  /** The next frame, in order. */
  async frame(): Promise<ReceivedServerFrame> {
    await this.#waiters.until(() => this.frames.length > this.#read);
    const frame = this.frames[this.#read];
    if (frame === undefined) throw new Error('there is a frame');
    this.#read += 1;
    return frame;
  }

  async until(holds: (frames: readonly ReceivedServerFrame[]) => boolean): Promise<void> {
    await this.#waiters.until(() => holds(this.frames));
  }

  /** The answer to the request, whenever and in whichever frame it comes. */
  async answer(id: number): Promise<AnswerBody> {
    const find = (): AnswerBody | undefined =>
      this.frames.flatMap((frame) => frame.answers).findLast((answer) => answer.id === id)?.body;
    await this.#waiters.until(() => find() !== undefined);
    const body = find();
    if (body === undefined) throw new Error('there is an answer');
    return body;
  }

  async failure(id: number): Promise<{ readonly code: string; readonly message: string }> {
    const body = await this.answer(id);
    if (body.kind !== 'failed') throw new Error(`request ${id} was answered with ${body.kind}`);
    return body.failure;
  }
}

/** Without a start: the present state. */
export const subscribe = (...patterns: string[]): RequestBody => ({
  kind: 'subscribe',
  patterns,
  start: { kind: 'present_state' },
});

export const session = '00112233445566778899aabbccddeeff';

export const openSession: RequestBody = { kind: 'open_session', session, graceMs: 5_000, resume: false };

/** Both sides of a gateway thread, in one thread of the test: what they say to each other is what it would be. */
import { closeSync, openSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { MessageChannel } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import {
  createGatewayThreads,
  defaultGatewayThreads,
  gatewayLimits,
  runGatewayThread,
} from '../../src/gateway/index.ts';
import type {
  AgentGateway,
  GatewayLimits,
  GatewayThreadData,
  GatewayThreadsOptions,
  ThreadMetrics,
} from '../../src/gateway/index.ts';
import { takeDescriptor } from '../../src/gateway/workers/descriptor-place.ts';
import { Packer, Unpacker } from '../../src/gateway/workers/packing.ts';
import type { Item, Packed } from '../../src/gateway/workers/packing.ts';
import { SocketCounts } from '../../src/gateway/socket-counts.ts';
import { PrincipalLedger } from '../../src/gateway/workers/principal-ledger.ts';
import { toGateway } from '../../src/gateway/workers/to-gateway.ts';
import { toServer } from '../../src/gateway/workers/to-server.ts';
import { FuturestoreError, protobufCodec } from '../../src/protocol/index.ts';
import { compilePolicies } from '../../src/scopes/index.ts';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import type { Gateway, GatewayEvent } from '../../src/server/index.ts';
import { issue, makeAuthority } from './certificates.ts';
import { FakePort, hello, LogBook, ManualClock, policyDocument, TestAgent, theWorld } from './harness.ts';

class Metrics implements ThreadMetrics {
  readonly all: string[] = [];
  silentSeconds = 0;
  refused(code: string, count: number): void {
    this.all.push(`refused ${code} ${count}`);
  }
  connectionClosed(code: number, count: number): void {
    this.all.push(`closed ${code} ${count}`);
  }
  turnedAway(stage: string, count: number): void {
    this.all.push(`turned away ${stage} ${count}`);
  }
  gatewayThread(_place: number, { silentSeconds }: { readonly silentSeconds: number }): void {
    this.silentSeconds = silentSeconds;
  }
}

type Worker = ReturnType<GatewayThreadsOptions['startThread']>;

/** A thread that does what the test does. */
class ScriptedThread {
  readonly heard: Item[] = [];
  readonly #listeners = new Map<string, (argument: never) => void>();
  ended = false;

  postMessage(message: Packed): void {
    this.heard.push(...new Unpacker(message).items);
  }
  on(event: string, listener: (argument: never) => void): void {
    this.#listeners.set(event, listener);
  }
  unref(): void {}
  terminate(): Promise<void> {
    this.ended = true;
    return Promise.resolve();
  }
  say(...items: Item[]): void {
    const packer = new Packer();
    for (const item of items) packer.add(item);
    this.emit('message', packer.take());
  }
  emit(event: string, argument: unknown): void {
    this.#listeners.get(event)?.(argument as never);
  }
  /** What was said to it with this tag, since the last time. */
  take(tag: number): readonly unknown[][] {
    const found = this.heard.filter(([each]) => each === tag).map(([, ...rest]) => rest);
    this.heard.splice(0, this.heard.length, ...this.heard.filter(([each]) => each !== tag));
    return found;
  }
}

const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface Rig {
  readonly gateway: AgentGateway;
  readonly ports: readonly FakePort[];
  readonly clock: ManualClock;
  readonly log: LogBook;
  readonly metrics: Metrics;
  readonly fatal: unknown[];
}

const makeRig = async (
  threads: number,
  startThread: (data: GatewayThreadData, parts: Pick<Rig, 'log' | 'clock'>) => unknown,
  limits: Partial<GatewayLimits> = {},
  tcpPort = 0,
): Promise<Rig> => {
  const world = await theWorld();
  const parts = {
    clock: new ManualClock(),
    log: new LogBook(),
    metrics: new Metrics(),
    fatal: [] as unknown[],
  };
  const ports: FakePort[] = [];
  const gateway = createGatewayThreads({
    threads,
    startThread: (data) => startThread(data, parts) as Worker,
    attach: (delivery: Gateway) => {
      const port = new FakePort();
      port.deliver = (events) => delivery.deliver(events);
      ports.push(port);
      return port;
    },
    gateway: { listen: { host: '127.0.0.1', port: tcpPort }, ...world.server },
    policies: compilePolicies(policyDocument(world, {})),
    limits: { ...gatewayLimits, closeMs: 300, ...limits },
    logger: parts.log,
    metrics: parts.metrics,
    clock: parts.clock,
    onFatal: (error) => parts.fatal.push(error),
  });
  return { gateway, ports, ...parts };
};

describe('a gateway in a thread', () => {
  let close: () => Promise<void>;
  afterEach(() => close());

  /** One thread, as two ends of a channel. */
  const start = async (limits: Partial<GatewayLimits> = {}, tcpPort = 0) => {
    const startThread = (data: GatewayThreadData, { log, clock }: Pick<Rig, 'log' | 'clock'>): unknown => {
      const { port1, port2 } = new MessageChannel();
      runGatewayThread(port2, structuredClone(data), log, clock);
      return Object.assign(port1, {
        terminate: () => {
          port1.close();
          return Promise.resolve();
        },
      });
    };
    const rig = await makeRig(1, startThread, limits, tcpPort);
    const agents: TestAgent[] = [];
    close = async () => {
      for (const { ws } of agents) ws.terminate();
      await rig.gateway.close();
    };
    const { port } = await rig.gateway.listen();
    const world = await theWorld();
    const agent = async (credentials = world.web1): Promise<TestAgent> => {
      const ws = new WebSocket(`wss://127.0.0.1:${port}/`, [protobufCodec.subprotocol], {
        ca: world.serverAuthority.pem,
        ...credentials,
        perMessageDeflate: false,
      });
      const connected = new TestAgent(ws, protobufCodec);
      agents.push(connected);
      await connected.opened;
      return connected;
    };
    const [server] = rig.ports;
    if (server === undefined) throw new Error('the server has a gateway');
    return { ...rig, port, agent, server, world };
  };

  test('takes what the server says of itself, asks it, and hands on its answers', async () => {
    const { agent, server } = await start();
    const one = await agent();
    // Before anybody could have said that it is admitted.
    one.send({ hello, requests: [{ id: 1, body: { kind: 'get', key: 'shared/a', stale: false } }] });
    const { welcome } = await one.frame();
    expect(welcome).toMatchObject({ clusterId: 'c0ffee', revision: 41, principal: 'puppet:web1' });
    await server.until(({ requests }) => requests.length === 1);
    const [request] = server.requests;
    expect(request).toMatchObject({ kind: 'get', request: 1, key: 'shared/a' });
    const body = { kind: 'got' as const, revision: 9, future: undefined };
    server.deliver([{ kind: 'answer', connection: request?.connection ?? 0, request: 1, body }]);
    expect(await one.answer(1)).toEqual(body);
  });

  test('takes nothing that was said of a cancelled request or subscription for the next one of its number', async () => {
    const { agent, server } = await start();
    const one = await agent();
    const get = (id: number, key: string) => ({ id, body: { kind: 'get' as const, key, stale: false } });
    const cancel = (id: number, request: number) => ({ id, body: { kind: 'cancel' as const, request } });
    const follow = (id: number, pattern: string) => ({
      id,
      body: { kind: 'subscribe' as const, patterns: [pattern], start: { kind: 'present_state' as const } },
    });
    one.send({ hello, requests: [get(1, 'shared/a'), follow(2, 'nodes/web1/in/**')] });
    await server.until(({ requests }) => requests.length === 2);
    const connection = server.requests[0]?.connection ?? 0;
    const got = (revision: number): GatewayEvent => ({
      kind: 'answer',
      connection,
      request: 1,
      body: { kind: 'got', revision, future: undefined },
    });
    const position = { clusterId: 'c0ffee', epoch: 3, revision: 5 };
    const subscribed: GatewayEvent = {
      kind: 'answer',
      connection,
      request: 2,
      body: { kind: 'subscribed', position, reset: false },
    };
    const push = (revision: number): GatewayEvent => ({
      kind: 'push',
      connection,
      subscription: 2,
      changes: [],
      revision,
      caughtUp: false,
      bytes: revision,
    });
    server.deliver([subscribed]);
    await one.answer(2);
    // What the server has said when it hears of the cancels.
    const notify = server.notify.bind(server);
    server.notify = (notices) => {
      if (notices.some(({ kind }) => kind === 'cancel')) server.deliver([got(9), push(9)]);
      notify(notices);
    };
    one.send({ requests: [cancel(3, 1), cancel(4, 2)] });
    one.send({ requests: [get(1, 'shared/b'), follow(2, 'nodes/web1/**')] });
    await server.until(({ requests }) => requests.length === 4);
    server.deliver([got(10), subscribed, push(10)]);
    await expect.poll(() => one.frames.flatMap(({ pushes }) => pushes).at(-1)?.revision).toBe(10);
    const answers = one.frames.flatMap((frame) => frame.answers).filter(({ id }) => id === 1);
    expect(answers.map(({ body }) => body)).toMatchObject([
      { kind: 'failed', failure: { code: 'CANCELLED' } },
      { kind: 'got', revision: 10 },
    ]);
    const pushes = one.frames.flatMap((frame) => frame.pushes);
    expect(pushes.map(({ revision, ended }) => [revision, ended?.code])).toEqual([
      [5, 'CANCELLED'],
      [10, undefined],
    ]);
    expect(server.notices).toContainEqual({ kind: 'delivered', connection, bytes: 9 });
  });

  test('holds frames until its agent is admitted, and refuses one too many of a principal', async () => {
    const { agent, metrics, gateway, clock } = await start({ connectionsPerPrincipalMax: 2 });
    const admitted = [await agent(), await agent()];
    for (const each of admitted) {
      each.send({ hello, requests: [] });
      expect((await each.frame()).welcome?.principal).toBe('puppet:web1');
    }
    const third = await agent();
    expect(await third.closed).toMatchObject({ code: 4031, reason: /puppet:web1 has 2 connections/ });
    admitted[0]?.ws.close();
    await admitted[0]?.closed;
    const next = await agent();
    next.send({ hello, requests: [] });
    expect((await next.frame()).welcome).toBeDefined();
    clock.advance(1000);
    await expect.poll(() => gateway.connections).toBe(2);
    await expect.poll(() => metrics.all).toContain('turned away capacity 1');
    expect(metrics.all.some((line) => line.startsWith('closed '))).toBe(true);
  });

  test('revokes at the place of the event: what was answered before is sent, nothing later', async () => {
    const { agent, server } = await start();
    const one = await agent();
    one.send({ hello, requests: [{ id: 1, body: { kind: 'get', key: 'shared/a', stale: false } }] });
    await one.frame();
    await server.until(({ requests }) => requests.length === 1);
    const connection = server.requests[0]?.connection ?? 0;
    server.deliver([
      {
        kind: 'access',
        revision: 3,
        document: undefined,
        revocations: [{ kind: 'principal', realm: 'puppet', name: 'web1' }] as never,
      },
      {
        kind: 'answer',
        connection,
        request: 1,
        body: { kind: 'got', revision: 4, future: undefined },
      },
    ]);
    expect((await one.closed).code).toBe(4503);
    expect(one.frames.flatMap(({ answers }) => answers)).toEqual([]);
  });

  test('judges who is connected again, within a second, when other authorities count', async () => {
    const { agent, gateway, clock } = await start();
    const one = await agent();
    one.send({ hello, requests: [] });
    await one.frame();
    const next = await makeAuthority('CN=Puppet CA');
    await gateway.replaceFileRealms({ puppet: { tls: { issuer: next.pem, identity: 'cn' } } });
    clock.advance(999);
    expect((await one.closed).code).toBe(4501);
  });

  test('takes another certificate, and tells why it does not', async () => {
    const { agent, gateway, world, port } = await start();
    await agent();
    const broken = gateway.replaceCertificate({ cert: 'no certificate', key: world.server.key });
    await expect(broken).rejects.toMatchObject({ code: 'CONFIGURATION_INVALID' });
    await expect(broken).rejects.toBeInstanceOf(FuturestoreError);
    const renewed = await issue(world.serverAuthority, { subject: 'CN=renewed', server: true });
    await gateway.replaceCertificate(renewed);
    const ws = new WebSocket(`wss://127.0.0.1:${port}/`, [protobufCodec.subprotocol], {
      ca: world.serverAuthority.pem,
      ...world.web1,
    });
    await new TestAgent(ws, protobufCodec).opened;
    const socket = Reflect.get(ws, '_socket') as TLSSocket;
    expect(socket.getPeerCertificate().subject.CN).toBe('renewed');
    ws.terminate();
  });

  test('drains: agents are told to go elsewhere, and are closed', async () => {
    const { agent, gateway, clock } = await start();
    const one = await agent();
    one.send({ hello, requests: [] });
    await one.frame();
    const drained = gateway.drain(1000);
    expect((await one.frame()).goaway?.graceMs).toBe(1000);
    clock.advance(1000);
    expect((await one.closed).code).toBe(4090);
    await drained;
    await expect(agent()).rejects.toThrow(/ECONNREFUSED/);
  });

  test('says where it cannot listen as a gateway in the main thread does', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => blocker.once('listening', resolve));
    const { port } = blocker.address() as AddressInfo;
    await expect(start({}, port)).rejects.toMatchObject({ code: 'EADDRINUSE', syscall: 'listen', port });
    blocker.close();
  });

  test('takes the silence of its server for that of the cluster, until it hears of it again', async () => {
    const { agent, log, clock } = await start();
    const one = await agent();
    one.send({ hello, requests: [] });
    await one.frame();
    const rounds = (): number =>
      log.lines.filter(({ message }) => message === 'sending agents elsewhere').length;
    // Time passes at once: nothing that is said in it is heard before its end.
    clock.advance(gatewayLimits.leaderlessMs + 1000);
    expect((await one.frame()).goaway).toBeDefined();
    expect(rounds()).toBe(1);
    const late = await agent();
    late.send({ hello, requests: [] });
    await late.frame();
    clock.advance(gatewayLimits.leaderlessMs - 1000);
    expect(rounds()).toBe(1);
  });
});

const onePerPrincipal = async (): Promise<PolicyDocument> => {
  const world = await theWorld();
  return {
    realms: { puppet: { tls: { issuer: world.puppet.pem, identity: 'cn' } } },
    policies: { agent: [{ allow: ['*'], on: '**' }, { limit: { connections: 1 } }] },
    bindings: [{ realm: 'puppet', policies: ['agent'] }],
  };
};

describe('the gateway in its thread', () => {
  /** The test is the server's side. */
  const start = async () => {
    const world = await theWorld();
    const heard: Item[] = [];
    let listener: (message: Packed) => void = () => undefined;
    const port = {
      postMessage: (message: Packed): void => void heard.push(...new Unpacker(message).items),
      on: (_event: 'message', told: (message: Packed) => void): void => {
        listener = told;
      },
    };
    const say = (...items: Item[]): void => {
      const packer = new Packer();
      for (const item of items) packer.add(item);
      listener(packer.take());
    };
    const data: GatewayThreadData = {
      place: 0,
      sockets: SocketCounts.memory(2),
      standing: new FakePort().standing,
      policies: policyDocument(world, {}),
      gateway: { listen: { host: '127.0.0.1', port: 0 }, ...world.server },
      limits: { closeMs: 300 },
    };
    runGatewayThread(port, data, new LogBook(), new ManualClock());
    const call = async (number: number, name: string): Promise<unknown> => {
      say([toGateway.call, number, name, null]);
      const reply = (): Item | undefined =>
        heard.find(([tag, of]) => tag === toServer.reply && of === number);
      await expect.poll(reply).toBeDefined();
      return reply()?.[3];
    };
    const { port: tcpPort } = (await call(1, 'listen')) as { readonly port: number };
    const ws = new WebSocket(`wss://127.0.0.1:${tcpPort}/`, [protobufCodec.subprotocol], {
      ca: world.serverAuthority.pem,
      ...world.web1,
    });
    const agent = new TestAgent(ws, protobufCodec);
    await agent.opened;
    agent.send({ hello, requests: [{ id: 1, body: { kind: 'get', key: 'shared/a', stale: false } }] });
    await expect.poll(() => heard.map(([tag]) => tag)).toContain(toServer.enter);
    // All that was sent is here.
    const pong = new Promise((resolve) => ws.once('pong', resolve));
    ws.ping();
    return { agent, heard, say, call, pong };
  };

  const tags = (heard: readonly Item[]): unknown[] =>
    heard.map(([tag]) => tag).filter((tag) => tag !== toServer.reply);

  test('judges again who was judged before other authorities count and is admitted after', async () => {
    const { agent, heard, say, call } = await start();
    const next = await makeAuthority('CN=Puppet CA');
    const realms = { puppet: { tls: { issuer: next.pem, identity: 'cn' } } };
    say([toGateway.call, 2, 'replaceFileRealms', realms]);
    await expect.poll(() => heard.filter(([tag]) => tag === toServer.reply)).toHaveLength(2);
    say([toGateway.admission, 1, true]);
    expect(await agent.closed).toMatchObject({ code: 4501 });
    expect(heard.map(([tag]) => tag)).not.toContain(toServer.get);
    expect(agent.frames).toEqual([]);
    await call(3, 'close');
  });

  test('takes nothing from an agent that is not admitted yet, and then all in order', async () => {
    const { agent, heard, say, call } = await start();
    for (let turn = 0; turn < 20; turn += 1) await immediate();
    expect([agent.frames, tags(heard)]).toEqual([[], [toServer.enter]]);
    say([toGateway.admission, 1, true]);
    await expect.poll(() => tags(heard)).toEqual([toServer.enter, toServer.get]);
    expect((await agent.frame()).welcome?.principal).toBe('puppet:web1');
    await call(2, 'close');
  });

  test('asks anew who may do what when its agent is admitted', async () => {
    const { agent, heard, say, call } = await start();
    const revocations = [{ kind: 'principal', realm: 'puppet', name: 'web1' }];
    say([toGateway.other, { kind: 'access', revision: 3, revocations }], [toGateway.admission, 1, true]);
    expect((await agent.closed).code).toBe(4503);
    await expect.poll(() => tags(heard)).toEqual([toServer.enter, toServer.leave]);
    await call(2, 'close');
  });

  test('says of whom it has had for long that it is the only one that its principal may have now', async () => {
    const { heard, say, call } = await start();
    const document = await onePerPrincipal();
    const access = { kind: 'access', revision: 3, document, revocations: [] };
    say([toGateway.other, access], [toGateway.admission, 1, true]);
    await expect.poll(() => tags(heard)).toContain(toServer.sole);
    expect(heard.find(([tag]) => tag === toServer.sole)?.[1]).toBe('puppet:web1');
    await call(2, 'close');
  });

  test('gives back the place of an agent that has gone before it was admitted', async () => {
    const { agent, heard, say, call } = await start();
    agent.ws.terminate();
    await immediate();
    await expect.poll(() => agent.ws.readyState).toBe(agent.ws.CLOSED);
    for (let turn = 0; turn < 50; turn += 1) await immediate();
    say([toGateway.admission, 1, true]);
    await expect.poll(() => tags(heard)).toContain(toServer.leave);
    await call(2, 'close');
  });
});

describe('a server with gateways in threads', () => {
  const scripted = async (threads: number, limits: Partial<GatewayLimits> = {}) => {
    const made: ScriptedThread[] = [];
    const rig = await makeRig(
      threads,
      () => {
        const thread = new ScriptedThread();
        made.push(thread);
        return thread;
      },
      limits,
    );
    return { ...rig, made, first: made[0] as ScriptedThread, second: made[1] as ScriptedThread };
  };

  /** Answers the calls that it was made, as done. */
  const done = async (thread: ScriptedThread, result: unknown = null): Promise<string[]> => {
    await immediate();
    const calls = thread.take(toGateway.call);
    for (const [number] of calls) thread.say([toServer.reply, number, true, result]);
    return calls.map(([, name]) => String(name));
  };

  /** Answers the calls that it was made, as failed. */
  const fail = async (thread: ScriptedThread): Promise<string[]> => {
    await immediate();
    const calls = thread.take(toGateway.call);
    for (const [number] of calls) thread.say([toServer.reply, number, false, { message: 'it cannot' }]);
    return calls.map(([, name]) => String(name));
  };

  test('has one for each core but the first, at most four', () => {
    expect([1, 2, 4, 5, 64].map(defaultGatewayThreads)).toEqual([0, 1, 3, 4, 4]);
  });

  test('counts the connections of a principal over all of them, and shares out its requests', async () => {
    const { first, second } = await scripted(2);
    first.say([toServer.enter, 1, 'puppet:web1', 3], [toServer.enter, 2, 'puppet:web1', 3]);
    second.say([toServer.enter, 1, 'puppet:web1', 3], [toServer.enter, 2, 'puppet:web1', 3]);
    await immediate();
    expect(first.take(toGateway.admission)).toEqual([
      [1, true],
      [2, true],
    ]);
    expect(second.take(toGateway.admission)).toEqual([
      [1, true],
      [2, false],
    ]);
    expect(first.take(toGateway.share)).toEqual([['puppet:web1', 2 / 3]]);
    expect(second.take(toGateway.share)).toEqual([['puppet:web1', 1 / 3]]);
    first.say([toServer.leave, 'puppet:web1'], [toServer.leave, 'puppet:web1']);
    await immediate();
    expect(second.take(toGateway.share)).toEqual([
      ['puppet:web1', 1 / 2],
      ['puppet:web1', 1],
    ]);
    second.say([toServer.enter, 3, 'puppet:web1', 3]);
    await immediate();
    expect(second.take(toGateway.admission)).toEqual([[3, true]]);
  });

  test('lets the newest connection of a principal that may have one take the place of that at another', async () => {
    const { first, second } = await scripted(2);
    first.say([toServer.enter, 1, 'puppet:web1', 1]);
    second.say([toServer.enter, 1, 'puppet:web1', 1]);
    await immediate();
    expect([first.take(toGateway.admission), second.take(toGateway.admission)]).toEqual([
      [[1, true]],
      [[1, true]],
    ]);
    expect([first.take(toGateway.replaced), second.take(toGateway.replaced)]).toEqual([
      [['puppet:web1', 0]],
      [],
    ]);
    first.say([toServer.leave, 'puppet:web1'], [toServer.enter, 2, 'puppet:web1', 1]);
    await immediate();
    expect(second.take(toGateway.replaced)).toEqual([['puppet:web1', 0]]);
    expect(first.take(toGateway.replaced)).toEqual([]);
  });

  test('lets the newest one stay once policies say that it may have one, whichever thread finds it first', async () => {
    for (const secondIsFirst of [false, true]) {
      const { first, second, clock } = await scripted(2);
      first.say([toServer.enter, 1, 'puppet:web1', 3]);
      second.say([toServer.enter, 1, 'puppet:web1', 3]);
      clock.advance(60_000);
      const found = [
        () => first.say([toServer.sole, 'puppet:web1', 9_000]),
        () => second.say([toServer.sole, 'puppet:web1', 5_000]),
      ];
      if (secondIsFirst) found.reverse();
      for (const find of found) find();
      await immediate();
      expect(first.take(toGateway.replaced)).toEqual([['puppet:web1', 5_000]]);
      expect(second.take(toGateway.replaced)).toEqual([]);
    }
  });

  test('lets one that came since stay, when another thread finds only then that its own is the only one', async () => {
    const { first, second } = await scripted(2);
    first.say([toServer.enter, 1, 'puppet:web1', 3]);
    second.say([toServer.enter, 1, 'puppet:web1', 1]);
    await immediate();
    first.take(toGateway.replaced);
    first.say([toServer.sole, 'puppet:web1', 9_000]);
    await immediate();
    expect(first.take(toGateway.replaced)).toEqual([['puppet:web1', 0]]);
    expect(second.take(toGateway.replaced)).toEqual([]);
    // Nothing is kept of those that have left.
    first.say([toServer.leave, 'puppet:web1'], [toServer.sole, 'puppet:web1', 0]);
    second.say([toServer.leave, 'puppet:web1'], [toServer.enter, 2, 'puppet:web1', 3]);
    second.say([toServer.sole, 'puppet:web1', 100_000]);
    await immediate();
    expect(first.take(toGateway.replaced)).toEqual([]);
    expect(second.take(toGateway.replaced)).toEqual([]);
  });

  test('sends away as many as were asked for, each thread its part', async () => {
    const { gateway, first, second } = await scripted(2);
    const report = { refused: {}, closed: {}, turnedAway: {}, delayP99Ms: 0, delayMaxMs: 0 };
    first.say([toServer.report, { ...report, connections: 30 }]);
    second.say([toServer.report, { ...report, connections: 10 }]);
    const moves = [
      { endpoint: 'wss://one:7421', agents: 7 },
      { endpoint: '', agents: 1 },
    ];
    const sent = gateway.sendAway(moves, 1000);
    await immediate();
    const asked = [first, second].map((thread) => {
      const [call] = thread.take(toGateway.call);
      if (call === undefined) throw new Error('it was not asked');
      thread.say([toServer.reply, call[0], true, 4]);
      return (call[2] as { readonly moves: readonly { readonly agents: number }[] }).moves;
    });
    expect(await sent).toBe(8);
    expect(asked[0]).toEqual([
      { endpoint: 'wss://one:7421', agents: 5 },
      { endpoint: '', agents: 1 },
    ]);
    expect(asked[1]).toEqual([{ endpoint: 'wss://one:7421', agents: 2 }]);
  });

  test('takes agents again after a drain: the first thread opens the socket, the others share it', async () => {
    const { gateway, first, second } = await scripted(2);
    const listening = gateway.listen();
    const descriptor = openSync('/dev/null', 'r');
    const port = { port: 7421, descriptor };
    expect(await done(first, port)).toEqual(['listen']);
    await expect.poll(() => done(second, port)).toEqual(['listen']);
    await listening;
    const drained = gateway.drain(1000);
    await immediate();
    closeSync(descriptor);
    expect(await done(first)).toEqual(['stopAccepting']);
    await expect.poll(() => done(second)).toEqual(['stopAccepting']);
    closeSync(descriptor);
    await expect.poll(() => done(first)).toEqual(['drain']);
    expect(await done(second)).toEqual(['drain']);
    await drained;
    const admitted = gateway.admit();
    const again = { port: 7421, descriptor: descriptor + 1 };
    await expect.poll(() => done(first, again)).toEqual(['admit']);
    await immediate();
    await immediate();
    expect(second.take(toGateway.call).map(([, ...call]) => call)).toEqual([
      ['admit', { descriptor: descriptor + 1 }],
    ]);
    second.say([toServer.reply, 4, true, again]);
    await admitted;
  });

  test('is drained as before when one of them cannot take agents again, and takes them at the next attempt', async () => {
    const { gateway, first, second } = await scripted(2);
    const listening = gateway.listen();
    const descriptor = openSync('/dev/null', 'r');
    const port = { port: 7421, descriptor };
    closeSync(descriptor);
    await done(first, port);
    await expect.poll(() => done(second)).toEqual(['listen']);
    await listening;
    const drained = gateway.drain(1000);
    for (const call of ['stopAccepting', 'drain'])
      for (const thread of [first, second]) await expect.poll(() => done(thread)).toEqual([call]);
    await drained;
    closeSync(descriptor);
    const admitted = gateway.admit();
    admitted.catch(() => undefined);
    await expect.poll(() => done(first, port)).toEqual(['admit']);
    await expect.poll(() => fail(second)).toEqual(['admit']);
    await expect.poll(() => done(first)).toEqual(['stopAccepting']);
    await expect(admitted).rejects.toThrow('it cannot');
    expect(await done(second)).toEqual([]);
    const again = gateway.admit();
    for (const thread of [first, second]) await expect.poll(() => done(thread, port)).toEqual(['admit']);
    await again;
  });

  test("ends a drain also in a thread that could not close the socket's number and takes nobody", async () => {
    const { gateway, first, second } = await scripted(2);
    const listening = gateway.listen();
    const descriptor = openSync('/dev/null', 'r');
    try {
      await done(first, { port: 7421, descriptor });
      await expect.poll(() => done(second)).toEqual(['listen']);
      await listening;
      const drained = gateway.drain(1000);
      for (const call of ['stopAccepting', 'drain'])
        for (const thread of [first, second]) await expect.poll(() => done(thread)).toEqual([call]);
      await drained;
      const admitted = gateway.admit();
      await expect.poll(() => done(first, { port: 7421, descriptor })).toEqual(['admit']);
      await expect.poll(() => done(second)).toEqual(['stay']);
      await admitted;
    } finally {
      closeSync(descriptor);
    }
  });

  test('hands requests and notices on in their order, those that come together as one', async () => {
    const { first, ports } = await scripted(1);
    const order: string[] = [];
    const [port] = ports as [FakePort];
    port.onSubmit = (requests) => order.push(`submit ${requests.length}`);
    const notify = port.notify.bind(port);
    port.notify = (notices) => {
      order.push(`notify ${notices.length}`);
      notify(notices);
    };
    const get = (request: number): Item => [toServer.get, 1, request, 'k', false, null];
    const cancel: Item = [toServer.notice, { kind: 'cancel', connection: 1, request: 1 }];
    first.say(get(1), get(2), cancel, cancel, get(1));
    expect(order).toEqual(['submit 2', 'notify 2', 'submit 1']);
  });

  test('opens one socket, tells the others its number, and has it closed by one after the other', async () => {
    const { gateway, first, second } = await scripted(2);
    const listening = gateway.listen();
    const descriptor = openSync('/dev/null', 'r');
    await immediate();
    expect(first.take(toGateway.call)).toEqual([[1, 'listen', null]]);
    expect(second.take(toGateway.call)).toEqual([]);
    first.say([toServer.reply, 1, true, { port: 7421, descriptor }]);
    await immediate();
    await immediate();
    expect(second.take(toGateway.call)).toEqual([[1, 'listen', { descriptor }]]);
    second.say([toServer.reply, 1, true, { port: 7421, descriptor }]);
    expect(await listening).toEqual({ port: 7421, descriptor });

    const closed = gateway.close();
    await immediate();
    expect(first.take(toGateway.call)).toEqual([[2, 'stopAccepting', { keepDescriptor: false }]]);
    await immediate();
    expect(second.take(toGateway.call)).toEqual([]);
    // As the first thread's server does; then the number is a file's that means nothing.
    closeSync(descriptor);
    first.say([toServer.reply, 2, true, null]);
    await expect
      .poll(() => second.take(toGateway.call))
      .toEqual([[2, 'stopAccepting', { keepDescriptor: false }]]);
    closeSync(descriptor);
    second.say([toServer.reply, 2, true, null]);
    await immediate();
    expect(await done(first)).toEqual(['close']);
    expect(await done(second)).toEqual(['close']);
    await closed;
    expect([first.ended, second.ended]).toEqual([true, true]);
  });

  test('ends when one of them fails, however it does, and tells whoever waits for it', async () => {
    for (const [event, argument, why] of [
      ['error', new Error('out of memory'), /gateway thread 1 has failed: out of memory/],
      ['exit', 7, /gateway thread 1 has failed: it ended with code 7/],
    ] as const) {
      const { gateway, second, fatal } = await scripted(2);
      const call = gateway.lookForLists();
      call.catch(() => undefined);
      second.emit(event, argument);
      expect(fatal).toMatchObject([{ message: why }]);
      // The others have to have had their turn, so it is only then that the caller is told.
      second.emit('exit', 1);
      expect(fatal).toHaveLength(1);
    }
  });

  test('ends the others when one of them has failed before it is closed', async () => {
    for (const place of [0, 1]) {
      const { gateway, made } = await scripted(2);
      const [failed, left] = place === 0 ? made : made.toReversed();
      failed?.emit('exit', 1);
      const closed = gateway.close();
      closed.catch(() => undefined);
      if (left !== undefined) await expect.poll(() => done(left)).toEqual(['close']);
      await expect(closed).rejects.toThrow(`gateway thread ${place} has `);
      expect(left?.ended).toBe(true);
    }
  });

  test('says which one stands still, goes on when it does, and ends after a minute', async () => {
    const { gateway, first, fatal, clock, log, metrics } = await scripted(1);
    const listening = gateway.listen();
    await done(first, { port: 1 });
    await listening;
    const messages = (): string[] => log.lines.map(({ message }) => message);
    clock.advance(3000);
    await immediate();
    expect(first.take(toGateway.tick)).toHaveLength(1);
    expect([messages(), metrics.silentSeconds]).toEqual([[], 2]);
    clock.advance(4000);
    expect(messages()).toEqual(['a gateway thread stands still: its agents are not served']);
    const report = { connections: 5, refused: {}, closed: {}, turnedAway: {}, delayP99Ms: 1, delayMaxMs: 2 };
    first.say([toServer.report, report]);
    expect(messages().at(-1)).toBe('a gateway thread goes on');
    expect([gateway.connections, metrics.silentSeconds]).toEqual([5, 0]);
    clock.advance(60_000);
    expect(fatal).toEqual([]);
    clock.advance(2000);
    expect(fatal).toMatchObject([{ message: /has stood still for 60 s/ }]);
  });
});

describe('the connections of principals over several threads', () => {
  test('never have a thread leave that has none', () => {
    const ledger = new PrincipalLedger({ tellShare: () => undefined, tellReplaced: () => undefined });
    ledger.enter(0, 'puppet:a', 1, 0);
    expect(() => ledger.leave(1, 'puppet:a')).toThrow(/no connection of puppet:a/);
  });
});

describe('the number of a shared socket', () => {
  test('is taken where it is free, whatever lower numbers are', async () => {
    const [low, wanted] = [openSync('/dev/null', 'r'), openSync('/dev/null', 'r')] as [number, number];
    closeSync(low);
    closeSync(wanted);
    expect(await takeDescriptor(wanted)).toBe(true);
    closeSync(wanted);
    const again = openSync('/dev/null', 'r');
    expect(again).toBe(low);
    closeSync(again);
  });

  test("is left alone where it is somebody else's", async () => {
    const other = openSync('/dev/null', 'r');
    expect(await takeDescriptor(other)).toBe(false);
    closeSync(other);
  });
});

/** Both sides of a gateway thread, in one thread of the test: what they say to each other is what it would be. */
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { MessageChannel } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { gatewayLimits, runGatewayThread } from '../../src/gateway/index.ts';
import type { GatewayLimits, GatewayThreadData } from '../../src/gateway/index.ts';
import { Packer, Unpacker } from '../../src/gateway/workers/packing.ts';
import type { Item, Packed } from '../../src/gateway/workers/packing.ts';
import { SocketCounts } from '../../src/gateway/socket-counts.ts';
import { toGateway } from '../../src/gateway/workers/to-gateway.ts';
import { toServer } from '../../src/gateway/workers/to-server.ts';
import { FuturestoreError, protobufCodec } from '../../src/protocol/index.ts';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import type { GatewayEvent } from '../../src/server/index.ts';
import { issue, makeAuthority } from './certificates.ts';
import { FakePort, hello, LogBook, ManualClock, policyDocument, TestAgent, theWorld } from './harness.ts';
import { immediate, makeRig } from './scripted-threads.ts';
import type { Rig } from './scripted-threads.ts';

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
    const greeted = async (): Promise<TestAgent> => {
      const connected = await agent();
      connected.send({ hello, requests: [] });
      await connected.frame();
      return connected;
    };
    const [server] = rig.ports;
    if (server === undefined) throw new Error('the server has a gateway');
    return { ...rig, port, agent, greeted, server, world };
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
    const { greeted, gateway, clock } = await start();
    const one = await greeted();
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
    const { agent, greeted, gateway, clock } = await start();
    const one = await greeted();
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
    const { greeted, log, clock } = await start();
    const one = await greeted();
    const rounds = (): number =>
      log.lines.filter(({ message }) => message === 'sending agents elsewhere').length;
    // Time passes at once: nothing that is said in it is heard before its end.
    clock.advance(gatewayLimits.leaderlessMs + 1000);
    expect((await one.frame()).goaway).toBeDefined();
    expect(rounds()).toBe(1);
    await greeted();
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

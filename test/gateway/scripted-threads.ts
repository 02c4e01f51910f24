/** A server with gateway threads, and threads that a test plays. */
import { createGatewayThreads, gatewayLimits } from '../../src/gateway/index.ts';
import type {
  AgentGateway,
  GatewayLimits,
  GatewayThreadData,
  GatewayThreadsOptions,
  ThreadMetrics,
} from '../../src/gateway/index.ts';
import { Packer, Unpacker } from '../../src/gateway/workers/packing.ts';
import type { Item, Packed } from '../../src/gateway/workers/packing.ts';
import { toGateway } from '../../src/gateway/workers/to-gateway.ts';
import { toServer } from '../../src/gateway/workers/to-server.ts';
import { compilePolicies } from '../../src/scopes/index.ts';
import type { Gateway } from '../../src/server/index.ts';
import { FakePort, LogBook, ManualClock, policyDocument, theWorld } from './harness.ts';

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
export class ScriptedThread {
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

export const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export interface Rig {
  readonly gateway: AgentGateway;
  readonly ports: readonly FakePort[];
  readonly clock: ManualClock;
  readonly log: LogBook;
  readonly metrics: Metrics;
  readonly fatal: unknown[];
}

export const makeRig = async (
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

/** A server whose gateway threads the test plays. */
export const scripted = async (threads: number, limits: Partial<GatewayLimits> = {}) => {
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
export const done = async (thread: ScriptedThread, result: unknown = null): Promise<string[]> => {
  await immediate();
  const calls = thread.take(toGateway.call);
  for (const [number] of calls) thread.say([toServer.reply, number, true, result]);
  return calls.map(([, name]) => String(name));
};

/** Answers the calls that it was made, as failed. */
export const fail = async (thread: ScriptedThread): Promise<string[]> => {
  await immediate();
  const calls = thread.take(toGateway.call);
  for (const [number] of calls) thread.say([toServer.reply, number, false, { message: 'it cannot' }]);
  return calls.map(([, name]) => String(name));
};

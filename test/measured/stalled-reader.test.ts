/**
 * One that subscribes to everything and reads nothing, while very many changes pass on a real server. How many:
 * FUTURESTORE_CHANGES, a million for the whole of it.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { loadProfile, type Client } from '../../src/client/index.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import type { Position, ReceivedServerFrame, SubscriptionStart } from '../../src/protocol/index.ts';
import { ProcessCluster, sleep } from '../support/process-cluster.ts';

const changes = Number(process.env['FUTURESTORE_CHANGES'] ?? 100_000);
const keys = 4000;
const operationsPerBatch = 256;
const writers = 4;
const valueBytes = 1024;

/** If what one does not read were kept, it would be `changes` × 1 KiB; two runs of one server differ by less. */
const residentMbMax = 64;

let cluster: ProcessCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

/** Reads nothing after its answer. Where it is cut it comes back, from where it was told to, and reads nothing again. */
class StalledReader {
  readonly view = new Map<string, number>();
  readonly cuts: string[] = [];
  resets = 0;
  position: Position | undefined;
  readonly #running: ProcessCluster;
  readonly #profile: ReturnType<typeof loadProfile>;
  #ws: WebSocket | undefined;
  #over = false;

  constructor(running: ProcessCluster) {
    this.#running = running;
    this.#profile = loadProfile(running.path('admin.yaml'));
  }

  async #stall(): Promise<void> {
    const { ca, cert, key } = this.#profile;
    const ws = new WebSocket(`wss://127.0.0.1:${this.#running.port}/`, [protobufCodec.subprotocol], {
      ca,
      cert,
      key,
      perMessageDeflate: false,
    });
    this.#ws = ws;
    ws.on('message', (data: Buffer) => this.#take(protobufCodec.decodeServerFrame(data)));
    await once(ws, 'open');
    const { position } = this;
    const start: SubscriptionStart =
      position === undefined ? { kind: 'present_state' } : { kind: 'after', position };
    const requests = [{ id: 1, body: { kind: 'subscribe', patterns: ['**'], start } }] as const;
    ws.send(protobufCodec.encodeClientFrame({ hello: { clientName: 'test', clientVersion: '1' }, requests }));
    while (this.#answered !== ws) await once(ws, 'message');
    (Reflect.get(ws, '_socket') as Socket).pause();
  }

  #answered: WebSocket | undefined;

  #take({ answers, pushes }: ReceivedServerFrame): void {
    for (const { body } of answers) {
      if (body.kind !== 'subscribed') throw new Error(`the subscription was answered with ${body.kind}`);
      this.#answered = this.#ws;
      this.position = body.position;
      if (!body.reset) continue;
      this.resets += 1;
      this.view.clear();
    }
    for (const push of pushes) {
      for (const change of push.changes) {
        if (change.kind === 'deleted') this.view.delete(change.key);
        else this.view.set(change.key, change.revision);
      }
      if (this.position !== undefined) this.position = { ...this.position, revision: push.revision };
    }
  }

  /** Again and again, until `ended`. */
  async stallOn(): Promise<void> {
    while (!this.#over) {
      await this.#stall();
      await this.#cut();
    }
  }

  /** The next cut is the last one. */
  ended(): void {
    this.#over = true;
  }

  /** The server says in its log when it cuts: one that reads nothing hears nothing, and has five seconds to read why. */
  async #cut(): Promise<void> {
    const ws = this.#ws;
    if (ws === undefined) throw new Error('it was never connected');
    const wanted = this.cuts.length + 1;
    const cutSoFar = (): number => this.#running.log(1).split('"code":4029,"reason"').length - 1;
    while (cutSoFar() < wanted) await sleep(100);
    const closed = once(ws, 'close') as Promise<[code: number, reason: Buffer]>;
    (Reflect.get(ws, '_socket') as Socket).resume();
    const [code, reason] = await closed;
    this.cuts.push(`${code} ${reason.toString()}`);
  }
}

const writeAll = async (client: Client, writer: number): Promise<void> => {
  const batches = Math.ceil(changes / operationsPerBatch / writers);
  let at = writer * 1000;
  for (let batch = 0; batch < batches; batch += 1) {
    await client.batch((builder) => {
      for (let operation = 0; operation < operationsPerBatch; operation += 1) {
        at += 1;
        const value = `${at}`.padEnd(valueBytes, '.');
        builder.resolve(`bulk/${writer}/${at % (keys / writers)}`, value, { supersede: true });
      }
    });
  }
};

/** How long another one waits for each change of its own, while it lasts. */
const delaysOf = async (writer: Client, reader: Client, until: Promise<unknown>): Promise<number[]> => {
  const delays: number[] = [];
  const state = { over: false };
  void until.then(() => (state.over = true));
  const subscription = reader.subscribe('marks/*')[Symbol.asyncIterator]();
  for (let mark = 0; !state.over; mark += 1) {
    const startedMs = performance.now();
    await writer.resolve('marks/one', `${mark}`, { supersede: true });
    for (;;) {
      const { value: event } = await subscription.next();
      if (event?.kind === 'future' && Buffer.from(event.future.value ?? []).toString() === `${mark}`) break;
    }
    delays.push(performance.now() - startedMs);
    await sleep(20);
  }
  await subscription.return?.();
  return delays;
};

interface Course {
  readonly residentMb: number;
  readonly medianMs: number;
  readonly seconds: number;
}

const residentMb = (pid: number): number => {
  const [, kilobytes = '0'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
};

const course = async (running: ProcessCluster): Promise<Course> => {
  const clients = await Promise.all(Array.from({ length: writers + 2 }, () => running.connect()));
  const [writer, reader, ...others] = clients;
  if (writer === undefined || reader === undefined) throw new Error('there are clients');
  const startedMs = performance.now();
  const written = Promise.all(others.map((client, at) => writeAll(client, at)));
  const [delays] = await Promise.all([delaysOf(writer, reader, written), written]);
  delays.sort((a, b) => a - b);
  return {
    residentMb: residentMb(running.processId(1)),
    medianMs: delays[delays.length >> 1] ?? Number.NaN,
    seconds: (performance.now() - startedMs) / 1000,
  };
};

const start = async (): Promise<ProcessCluster> =>
  await ProcessCluster.start({ servers: 1, settings: { log_retain: '8MiB' } });

const shown = ({ residentMb: mb, medianMs, seconds }: Course): string =>
  `${Math.round(mb)} MB, others are told after ${Math.round(medianMs)} ms, ${seconds.toFixed(1)} s`;

test(
  'a subscriber of everything that stops reading costs the server nothing while very many changes pass, and loses nothing',
  { timeout: 120_000 + changes * 5 },
  async () => {
    cluster = await start();
    const without = await course(cluster);
    await cluster.close();

    cluster = await start();
    const stalled = new StalledReader(cluster);
    const stalling = stalled.stallOn();
    const withIt = await course(cluster);
    stalled.ended();
    await stalling;
    console.log(`${changes} changes: ${shown(without)}; with one that reads nothing: ${shown(withIt)}`);
    expect(withIt.residentMb - without.residentMb).toBeLessThan(residentMbMax);
    expect(withIt.medianMs).toBeLessThan(3 * without.medianMs + 100);

    const cut = stalled.cuts.at(-1) ?? '';
    expect(cut).toMatch(/^4029 slow consumer: nothing was read for \d+ s; resume from revision \d+$/);
    const { position, view } = stalled;
    if (position === undefined) throw new Error('the subscription has a position');
    expect(cut).toMatch(new RegExp(`revision ${position.revision}$`));
    const present = await cluster.connect();
    const newest = new Map<string, number>();
    for await (const item of present.listAll('**')) newest.set(item.key, item.revision);
    expect(newest.size).toBe(keys + 1);
    for await (const event of present.subscribe('**', { from: position })) {
      if (event.kind === 'reset') view.clear();
      else if (event.kind === 'future') view.set(event.key, event.revision);
      else if (event.kind === 'deleted') view.delete(event.key);
      else if (event.kind === 'caught_up') break;
    }
    expect(view).toEqual(newest);
  },
);

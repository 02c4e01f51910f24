/**
 * npm run bench:cost -- --hops [--rounds N] [BUILD…]: where a write is at which time, from one client that waits for each,
 * on three servers that are processes of their own; and what the parts of its way take on this machine by themselves.
 * Of many writes on a busy machine the quicker half is shown: the others waited for a processor.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, fdatasyncSync, fstat, mkdtempSync, openSync } from 'node:fs';
import { readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import process from 'node:process';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type * as Client from '../../src/client/index.ts';
import { eventually, ProcessCluster } from '../../test/support/process-cluster.ts';
import { keyOf, value } from '../load/operations.ts';
import { median, percentile } from '../statistics.ts';
import { makeCertificates } from '../systems/certificates.ts';
import { nowUs, type HopsFile, type Mark } from './hop-marks.ts';

type Connected = ReturnType<typeof Client.connect>;

/** Whose mark it is, as seen from the leader and the server that was asked. */
type Place = 'asked' | 'leader' | 'follower';

type Row = readonly [Place, Mark];

const agreement: readonly Row[] = [
  ['leader', 'proposed'],
  ['leader', 'append sent'],
  ['leader', 'disk begun'],
  ['follower', 'append received'],
  ['follower', 'disk begun'],
  ['follower', 'disk done'],
  ['follower', 'acknowledged'],
  ['leader', 'disk done'],
  ['leader', 'acknowledgement received'],
  ['leader', 'commit sent'],
  ['leader', 'applied'],
];
const atLeader: readonly Row[] = [['asked', 'received by the gateway'], ...agreement, ['asked', 'answered']];
const atFollower: readonly Row[] = [
  ['asked', 'received by the gateway'],
  ['asked', 'forwarded'],
  ...agreement,
  ['asked', 'commit received'],
  ['asked', 'applied'],
  ['asked', 'answered'],
];

/** Of one build and one place: each write's microseconds, and since when it had passed each row. */
interface Times {
  readonly totals: number[];
  readonly rows: Map<string, number[]>;
}

type Places = Readonly<Record<'leader' | 'follower', Times>>;

const nameOf = ([place, mark]: Row): string => `${place}: ${mark}`;

/** The first time of each row in the span. The followers are one: the quicker one counts. */
const noteWrite = (
  times: Times,
  rows: readonly Row[],
  span: readonly [number, number],
  marksOf: (place: Place) => readonly (readonly [Mark, number])[],
): void => {
  const [from, to] = span;
  times.totals.push(to - from);
  for (const row of rows) {
    const [place, mark] = row;
    const at = marksOf(place).find(([other, atUs]) => other === mark && atUs >= from && atUs <= to)?.[1];
    const list = times.rows.get(nameOf(row)) ?? [];
    times.rows.set(nameOf(row), list);
    list.push(at === undefined ? Number.NaN : at - from);
  }
};

const warmMs = 6000;
const warmLanes = 24;

const settle = async (client: Connected, prefix: string, count: number): Promise<[number, number][]> => {
  const spans: [number, number][] = [];
  for (let number = 0; number < count; number += 1) {
    const from = nowUs();
    await client.resolve(keyOf(prefix, 0, number), value);
    spans.push([from, nowUs()]);
  }
  return spans;
};

/** Until the code is compiled as it will be. */
const warm = async (clients: readonly Connected[], round: number): Promise<void> => {
  const endMs = performance.now() + warmMs;
  await Promise.all(
    Array.from({ length: warmLanes }, async (_, lane) => {
      for (let number = 0; performance.now() < endMs; number += 1)
        await clients[lane % clients.length]?.resolve(keyOf(`warm${round}`, lane, number), value);
    }),
  );
};

const roundOf = async (build: string, settles: number, round: number, places: Places): Promise<void> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-hops-'));
  const command = resolve(build, 'dist', 'cli', 'futurestore.js');
  const cluster = await ProcessCluster.create({ command, settings: { log: { level: 'error' } } });
  const { connect, loadProfile } = (await import(
    pathToFileURL(resolve(build, 'dist', 'client', 'index.js')).href
  )) as Pick<typeof Client, 'connect' | 'loadProfile'>;
  const preload = new URL('hops-preload.js', import.meta.url).href;
  Object.assign(process.env, {
    NODE_OPTIONS: `--import ${preload}`,
    HOPS_BUILD: resolve(build),
    HOPS_DIRECTORY: directory,
  });
  try {
    for (const id of cluster.ids) cluster.startServer(id, { command });
    process.env['NODE_OPTIONS'] = '';
    await cluster.ready();
    const leader = await cluster.someLeader();
    const profile = loadProfile(cluster.path('admin.yaml'));
    const clients = cluster.ids.map((id) =>
      connect({ ...profile, endpoints: [`wss://127.0.0.1:${cluster.port + id - 1}`] }),
    );
    await warm(clients, round);
    let files = 0;
    const marksSince = async (): Promise<Map<number, HopsFile['marks']>> => {
      files += 1;
      const found = new Map<number, HopsFile['marks']>();
      for (const id of cluster.ids) {
        const pid = cluster.processId(id);
        process.kill(pid, 'SIGUSR2');
        const path = join(directory, `${pid}-${files}.json`);
        await eventually('a server has written its marks', () => Promise.resolve(existsSync(path)));
        found.set(id, (JSON.parse(readFileSync(path, 'utf8')) as HopsFile).marks);
      }
      return found;
    };
    const asked = [leader, ...cluster.ids.filter((id) => id !== leader)].slice(0, 2);
    for (const id of asked) {
      const client = clients[id - 1];
      if (client === undefined) throw new Error(`there is no client of server ${id}`);
      await settle(client, `first${round}-${id}`, 100);
      await marksSince();
      const spans = await settle(client, `hops${round}-${id}`, settles);
      const all = await marksSince();
      const followers = [...all].filter(([other]) => other !== leader).flatMap(([, marks]) => marks);
      const byPlace = {
        asked: [...(all.get(id) ?? [])],
        leader: [...(all.get(leader) ?? [])],
        follower: followers.sort((a, b) => a[1] - b[1]),
      };
      const rows = id === leader ? atLeader : atFollower;
      for (const span of spans) {
        // What is over is not looked at again.
        for (const marks of Object.values(byPlace)) {
          const begin = marks.findIndex(([, atUs]) => atUs >= span[0]);
          marks.splice(0, begin < 0 ? marks.length : begin);
        }
        noteWrite(places[id === leader ? 'leader' : 'follower'], rows, span, (place) => byPlace[place]);
      }
    }
    for (const client of clients) await client.close();
  } finally {
    process.env['NODE_OPTIONS'] = '';
    await cluster.close();
    rmSync(directory, { recursive: true, force: true });
  }
};

/** Half the way there and back, to another process. */
const messageUs = async (): Promise<number> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-hops-'));
  const files = await makeCertificates(directory);
  const [ca, cert, key] = [files.ca, files.cert, files.key].map((file) => readFileSync(file, 'utf8'));
  rmSync(directory, { recursive: true });
  const echo = fork(fileURLToPath(new URL('tls-echo-worker.js', import.meta.url)));
  echo.send({ ca, cert, key });
  const [port] = (await once(echo, 'message')) as [number];
  const socket = connectTls({ port, ca, cert, key, servername: 'localhost' });
  await once(socket, 'secureConnect');
  socket.setNoDelay(true);
  const message = Buffer.alloc(350, 1);
  const times: number[] = [];
  for (let sent = 0; sent < 4000; sent += 1) {
    const from = nowUs();
    socket.write(message);
    await once(socket, 'data');
    times.push((nowUs() - from) / 2);
  }
  socket.destroy();
  echo.disconnect();
  return quickHalf(times.slice(1000));
};

/** To another thread of the pool, and back, with next to nothing to do there; and a sync of a disk alone. */
const tripAndSyncUs = async (): Promise<{ readonly trip: number; readonly sync: number }> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-hops-'));
  const file = openSync(join(directory, 'file'), 'w');
  const trips: number[] = [];
  const syncs: number[] = [];
  const block = Buffer.alloc(500, 1);
  for (let done = 0; done < 2000; done += 1) {
    const from = nowUs();
    await new Promise<void>((told) => fstat(file, () => told()));
    trips.push(nowUs() - from);
    const before = nowUs();
    writeSync(file, block);
    fdatasyncSync(file);
    syncs.push(nowUs() - before);
  }
  closeSync(file);
  rmSync(directory, { recursive: true });
  return { trip: quickHalf(trips), sync: quickHalf(syncs) };
};

/** The median of the quicker half. */
const quickHalf = (values: readonly number[]): number => percentile(values, 0.25);

const tableLines = (title: string, { totals, rows }: Times, bound: number): readonly string[] => {
  const limit = percentile(totals, 0.5);
  const quick = (values: readonly number[]): number =>
    median(
      values.filter(
        (time, index) => !Number.isNaN(time) && (totals[index] ?? Number.POSITIVE_INFINITY) <= limit,
      ),
    );
  const lines = [...rows].map(([name, values]) => [quick(values), name] as const);
  const all = [...lines, [quick(totals), 'client: told'] as const].sort((a, b) => a[0] - b[0]);
  const [p10, p50] = [percentile(totals, 0.1), percentile(totals, 0.5)];
  return [
    `${title}: p10 ${p10.toFixed(0)}, p50 ${p50.toFixed(0)} µs; bound ${bound.toFixed(0)} µs, × ${(quick(totals) / bound).toFixed(2)}`,
    ...all.map(([time, name], index) => {
      const since = time - (all[index - 1]?.[0] ?? 0);
      return `${time.toFixed(0).padStart(8)} µs ${`+${since.toFixed(0)}`.padStart(6)}  ${name}`;
    }),
  ];
};

export const hopLines = async (
  builds: readonly string[],
  rounds: number,
  settles: number,
): Promise<readonly string[]> => {
  const newTimes = (): Times => ({ totals: [], rows: new Map() });
  const times = new Map<string, Places>(
    builds.map((build) => [build, { leader: newTimes(), follower: newTimes() }]),
  );
  const messages: number[] = [];
  const trips: number[] = [];
  const syncs: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    for (const [build, places] of times) await roundOf(build, settles, round, places);
    messages.push(await messageUs());
    const { trip, sync } = await tripAndSyncUs();
    trips.push(trip);
    syncs.push(sync);
  }
  const [message, trip, sync] = [median(messages), median(trips), median(syncs)];
  const bound = (hops: number): number => hops * message + trip + sync;
  return [
    'The quicker half of the writes. Bound: its messages one after the other, one trip to the disk thread, one sync.',
    `${message.toFixed(0).padStart(8)} µs  a message of 350 bytes over TLS to another process`,
    `${trip.toFixed(0).padStart(8)} µs  to a thread of the pool and back`,
    `${sync.toFixed(0).padStart(8)} µs  500 bytes written and synced`,
    ...builds.flatMap((build) => {
      const places = times.get(build);
      if (places === undefined) return [];
      return [
        ...tableLines(`${build}, asked: the leader (4 messages)`, places.leader, bound(4)),
        ...tableLines(`${build}, asked: a follower (6 messages)`, places.follower, bound(6)),
      ];
    }),
  ];
};

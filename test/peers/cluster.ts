/** Transports with real TLS on loopback, and what they heard. */
import { createServer } from 'node:net';
import { onTestFinished } from 'vitest';
import { asLogIndex, asMemberId, asTerm } from '../../src/raft/index.ts';
import type { MemberId, Message } from '../../src/raft/index.ts';
import { createTlsTransport } from '../../src/peers/index.ts';
import type {
  PeerBatch,
  PeerAddress,
  PeerEvents,
  PeerRefusal,
  SnapshotStreamPart,
  TlsTransport,
  TlsTransportOptions,
} from '../../src/peers/index.ts';
import { issue, makeCa } from '../support/certificates.ts';
import type { TestCa } from '../support/certificates.ts';

export const one = asMemberId(1);
export const two = asMemberId(2);
export const three = asMemberId(3);
export const nameOf = (id: number): string => `server${id}.test`;

let sharedCa: Promise<TestCa> | undefined;
/** Made once: making keys is slow. */
export const peersCa = (): Promise<TestCa> => (sharedCa ??= makeCa('peers'));

const certificates = new Map<string, ReturnType<typeof issue>>();
export const certificateOf = async (name: string): ReturnType<typeof issue> => {
  const found = certificates.get(name) ?? issue(await peersCa(), { cn: name });
  certificates.set(name, found);
  return found;
};

/** Waits for conditions without looking at the clock: it is asked again at each event. */
class Signal {
  #waiting: (() => void)[] = [];

  raise(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }
}

export interface Heard {
  readonly from: MemberId;
  readonly run: number;
  readonly batch: PeerBatch;
}

export interface Warning {
  readonly message: string;
  readonly reason: string;
}

export class TestPeer implements PeerEvents {
  readonly signal = new Signal();
  readonly heard: Heard[] = [];
  readonly parts: SnapshotStreamPart[] = [];
  readonly warnings: Warning[] = [];
  readonly refusals: (PeerRefusal & { readonly by: MemberId })[] = [];
  /** Of the protocol, of each link that came up. */
  readonly versions: number[] = [];
  readonly up = new Set<MemberId>();
  readonly roundTrips: number[] = [];
  connects = 0;
  disconnects = 0;
  /** Before a part is taken. */
  takePart: (stream: SnapshotStreamPart) => Promise<void> = () => Promise.resolve();
  onReceived: () => void = () => undefined;
  readonly transport: TlsTransport;

  constructor(options: Omit<TlsTransportOptions, 'random'> & Partial<TlsTransportOptions>) {
    this.transport = createTlsTransport({
      random: () => 0,
      logger: {
        info: () => undefined,
        warn: (fields, message) => {
          this.warnings.push({ message, reason: 'reason' in fields ? String(fields.reason) : '' });
          this.signal.raise();
        },
      },
      roundTrip: (_, ms) => {
        this.roundTrips.push(ms);
        this.signal.raise();
      },
      ...options,
    });
    onTestFinished(() => this.transport.close());
  }

  received(from: MemberId, run: number, batch: PeerBatch): void {
    this.heard.push({ from, run, batch });
    this.onReceived();
    this.signal.raise();
  }

  refused(peer: MemberId, refusal: PeerRefusal): void {
    this.refusals.push({ by: peer, ...refusal });
    this.signal.raise();
  }

  connected(peer: MemberId, version: number): void {
    this.up.add(peer);
    this.versions.push(version);
    this.connects += 1;
    this.signal.raise();
  }

  disconnected(peer: MemberId): void {
    this.up.delete(peer);
    this.disconnects += 1;
    this.signal.raise();
  }

  async snapshotPart(_from: MemberId, stream: SnapshotStreamPart): Promise<void> {
    await this.takePart(stream);
    this.parts.push(stream);
    this.signal.raise();
  }
}

/** For a server that has to know its own address before it listens. */
export const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });

/** Where each member listens, known only once it does. */
export class Ports {
  readonly #ports = new Map<number, number>();

  set(id: number, port: number): void {
    this.#ports.set(id, port);
  }

  get(id: number): number {
    // Port 9 (discard) refuses on every machine of ours: nobody is there yet.
    return this.#ports.get(id) ?? 9;
  }
}

export const memberAt = (ports: Ports, id: number, name = nameOf(id)): PeerAddress => ({
  id: asMemberId(id),
  name,
  get address() {
    return `127.0.0.1:${ports.get(id)}`;
  },
});

export const membersAt = (ports: Ports, ...ids: readonly number[]): readonly PeerAddress[] =>
  ids.map((id) => memberAt(ports, id));

const quick = { reconnectMin: 5, reconnectMax: 20, pingEvery: 20, silenceMax: 2_000 };

export const optionsFor = async (
  id: number,
  ports: Ports,
  overrides: Partial<TlsTransportOptions> = {},
): Promise<TlsTransportOptions> => ({
  memberId: asMemberId(id),
  memberName: nameOf(id),
  address: '127.0.0.1:9',
  clusterId: 'test',
  run: 1,
  diskId: new Uint8Array(16).fill(id),
  members: membersAt(ports, 1, 2),
  standing: () => ({ term: 3, lastIndex: 9 }),
  lineage: { since: 1, runs: [] },
  listen: { host: '127.0.0.1', port: 0 },
  ca: (await peersCa()).cert,
  ...(await certificateOf(nameOf(id))),
  random: () => 0,
  ...overrides,
  times: { ...quick, ...overrides.times },
});

export const startPeer = async (
  id: number,
  ports: Ports,
  overrides: Partial<TlsTransportOptions> = {},
): Promise<TestPeer> => {
  const peer = new TestPeer(await optionsFor(id, ports, overrides));
  await peer.transport.start(peer);
  ports.set(id, peer.transport.port);
  return peer;
};

export const startPair = async (
  ofOne: Partial<TlsTransportOptions> = {},
  ofTwo: Partial<TlsTransportOptions> = {},
): Promise<readonly [TestPeer, TestPeer]> => {
  const ports = new Ports();
  return [await startPeer(1, ports, ofOne), await startPeer(2, ports, ofTwo)];
};

export const heartbeat = (from: MemberId, to: MemberId, readRound: number): Message => ({
  from,
  to,
  term: asTerm(1),
  kind: 'heartbeat_request',
  commit: asLogIndex(0),
  readRound,
  settledTo: asLogIndex(0),
});

export const batchOf = (...raft: Message[]): PeerBatch => ({ raft, forward: [], forwardTerm: 0 });

/** What a server measures, by its Prometheus names. Labels are bound once: a bound metric costs nanoseconds. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import { closeCodes } from '../protocol/index.ts';
import type { ServerMetrics } from '../server/index.ts';
import { ThreadGauges } from './thread-gauges.ts';
import type { GatewayThreadState } from './thread-gauges.ts';

/** Read at every scrape. */
interface ServerGauges {
  readonly hasLeader: boolean;
  readonly isLeader: boolean;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly proposalsPending: number;
  readonly keys: number;
  readonly waits: number;
  readonly subscriptions: number;
  readonly connections: number;
  readonly sessions: number;
  readonly draining: boolean;
}

/** Beside what the server asks for, what gateway and peers do; none of these rooms knows this one. */
export interface Metrics extends ServerMetrics {
  readonly registry: Registry;
  /** From where the gauges come; may be given once the server is there. Before, they are 0. */
  observe(source: () => ServerGauges): void;
  /** A message to the peer and its answer took so long. */
  roundTrip(peer: number | string, milliseconds: number): void;
  /** A request was answered with this error code. */
  refused(code: string, count?: number): void;
  /** By the WebSocket's close code. */
  connectionClosed(code: number, count?: number): void;
  /** A socket that did not get as far as hello, and at which stage it ended. */
  turnedAway(stage: string, count?: number): void;
  /** Of a thread that serves agents, once a second. */
  gatewayThread(place: number, state: GatewayThreadState): void;
  /** Ends the watch over the event loop. */
  close(): void;
}

/** From a fast local disk to one that hangs. */
const diskBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];
/** An apply above 10 ms is a stall of the loop that runs raft. */
const applyBuckets = [0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1];
/** From one machine to the other side of the world. */
const roundTripBuckets = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];

const gaugeTexts: Readonly<Record<keyof ServerGauges, readonly [name: string, help: string]>> = {
  hasLeader: ['has_leader', 'Whether this server knows a leader'],
  isLeader: ['is_leader', 'Whether this server is the leader'],
  term: ['term', "Raft's term"],
  commitIndex: ['commit_index', 'The highest log index known to be committed'],
  appliedIndex: ['applied_index', 'The highest log index applied to the state'],
  proposalsPending: ['proposals_pending', 'Commands that wait for their outcome'],
  keys: ['keys', 'Keys in the store'],
  waits: ['waits', 'Awaits that wait on this server'],
  subscriptions: ['subscriptions', 'Subscriptions on this server'],
  connections: ['connections', 'Agents connected to this server'],
  sessions: ['sessions', 'Idempotency sessions in the store'],
  draining: ['draining', 'Whether this server is drained: it takes no agents'],
};

const isGaugeName = (name: string): name is keyof ServerGauges => Object.hasOwn(gaugeTexts, name);

/** All metrics are registered with `registry`, a fresh one by default, together with those of the process. */
export const createMetrics = (registry: Registry = new Registry()): Metrics =>
  new PrometheusMetrics(registry);

/** Gives the metric with its one label bound; the values come from closed sets, so that few are kept. */
class Labelled<T extends string, B> {
  readonly #bind: (value: T) => B;
  readonly #bound = new Map<T, B>();

  constructor(bind: (value: T) => B) {
    this.#bind = bind;
  }

  for(value: T): B {
    let bound = this.#bound.get(value);
    if (bound === undefined) {
      bound = this.#bind(value);
      this.#bound.set(value, bound);
    }
    return bound;
  }
}

class PrometheusMetrics implements Metrics {
  readonly registry: Registry;
  readonly #eventLoopDelay = monitorEventLoopDelay({ resolution: 10 });
  readonly #diskSync: Histogram;
  readonly #apply: Histogram;
  readonly #appliedEntries: Counter;
  readonly #proposalsFailed: Counter;
  readonly #expired: Counter;
  readonly #leaderChanges: Counter;
  readonly #snapshotsSent: Counter;
  readonly #snapshotsReceived: Counter;
  readonly #snapshotsFailed: Labelled<string, Counter.Internal>;
  readonly #requests: Labelled<string, Counter.Internal>;
  readonly #refused: Labelled<string, Counter.Internal>;
  readonly #closed: Labelled<string, Counter.Internal>;
  readonly #turnedAway: Labelled<string, Counter.Internal>;
  readonly #roundTrip: Labelled<string, Histogram.Internal<'peer'>>;
  readonly #threads: ThreadGauges;
  #source: (() => ServerGauges) | undefined;

  constructor(registry: Registry) {
    this.registry = registry;
    this.#diskSync = this.#histogram('disk_sync_seconds', 'Synced writes of the storage', diskBuckets);
    this.#apply = this.#histogram('apply_seconds', "Applying one turn's committed entries", applyBuckets);
    this.#appliedEntries = this.#counter('applied_entries_total', 'Log entries applied');
    this.#proposalsFailed = this.#counter(
      'proposals_failed_total',
      'Commands that were dropped or lost their outcome',
    );
    this.#expired = this.#counter(
      'expired_total',
      'Futures and sessions whose time has passed, as the log decided',
    );
    this.#leaderChanges = this.#counter(
      'leader_changes_total',
      'Changes of leader that this server has seen',
    );
    this.#snapshotsSent = this.#counter('snapshots_sent_total', 'Snapshots sent to peers');
    this.#snapshotsReceived = this.#counter('snapshots_received_total', 'Snapshots received and installed');
    this.#snapshotsFailed = this.#labelled('snapshots_failed_total', 'Snapshots that failed', 'direction');
    this.#requests = this.#labelled('requests_total', "Agents' requests", 'kind');
    this.#refused = this.#labelled('refused_total', 'Requests answered with an error', 'code');
    this.#closed = this.#labelled(
      'connections_closed_total',
      "Agents' connections that ended, by close code",
      'code',
    );
    this.#turnedAway = this.#labelled(
      'turned_away_total',
      'Sockets that did not get as far as hello',
      'stage',
    );
    const roundTrip = new Histogram({
      name: 'futurestore_peer_round_trip_seconds',
      help: 'A message to a peer and its answer',
      labelNames: ['peer'],
      buckets: roundTripBuckets,
      registers: [registry],
    });
    this.#roundTrip = new Labelled((peer) => roundTrip.labels(peer));
    this.#threads = new ThreadGauges(registry);
    this.#gauges();
    this.#watchEventLoop();
    collectDefaultMetrics({ register: registry });
  }

  observe(source: () => ServerGauges): void {
    this.#source = source;
  }

  diskSynced(seconds: number): void {
    this.#diskSync.observe(seconds);
  }

  applied(seconds: number, entries: number): void {
    this.#apply.observe(seconds);
    this.#appliedEntries.inc(entries);
  }

  proposalsFailed(count: number): void {
    this.#proposalsFailed.inc(count);
  }

  expired(count: number): void {
    this.#expired.inc(count);
  }

  leaderChanged(): void {
    this.#leaderChanges.inc();
  }

  snapshotSent(ok: boolean): void {
    if (ok) this.#snapshotsSent.inc();
    else this.#snapshotsFailed.for('sent').inc();
  }

  snapshotReceived(ok: boolean): void {
    if (ok) this.#snapshotsReceived.inc();
    else this.#snapshotsFailed.for('received').inc();
  }

  requests(kind: string, count: number): void {
    this.#requests.for(kind).inc(count);
  }

  roundTrip(peer: number | string, milliseconds: number): void {
    this.#roundTrip.for(String(peer)).observe(milliseconds / 1000);
  }

  refused(code: string, count = 1): void {
    this.#refused.for(code).inc(count);
  }

  connectionClosed(code: number, count = 1): void {
    // A client may close with 2,000 codes of its own: one label for all of them.
    this.#closed.for(knownCloseCode(code) ? String(code) : 'other').inc(count);
  }

  turnedAway(stage: string, count = 1): void {
    this.#turnedAway.for(stage).inc(count);
  }

  gatewayThread(place: number, state: GatewayThreadState): void {
    this.#threads.heard(place, state);
  }

  close(): void {
    this.#eventLoopDelay.disable();
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name: `futurestore_${name}`, help, registers: [this.registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: `futurestore_${name}`, help, buckets, registers: [this.registry] });
  }

  #labelled(name: string, help: string, label: string): Labelled<string, Counter.Internal> {
    const counter = new Counter({
      name: `futurestore_${name}`,
      help,
      labelNames: [label],
      registers: [this.registry],
    });
    return new Labelled((value) => counter.labels(value));
  }

  #gauges(): void {
    const read = (field: keyof ServerGauges): number => Number(this.#source?.()[field] ?? 0);
    for (const field of Object.keys(gaugeTexts).filter(isGaugeName)) {
      const [name, help] = gaugeTexts[field];
      const gauge: Gauge = new Gauge({
        name: `futurestore_${name}`,
        help,
        registers: [this.registry],
        collect: () => gauge.set(read(field)),
      });
    }
  }

  #watchEventLoop(): void {
    const delay = this.#eventLoopDelay;
    delay.enable();
    const gauge: Gauge = new Gauge({
      name: 'futurestore_event_loop_delay_seconds',
      help: 'How late the event loop was since the last scrape',
      labelNames: ['quantile'],
      registers: [this.registry],
      collect: () => {
        const measured = delay.count > 0;
        gauge.set({ quantile: '0.99' }, measured ? delay.percentile(99) / 1e9 : 0);
        gauge.set({ quantile: '1' }, measured ? delay.max / 1e9 : 0);
        delay.reset();
      },
    });
  }
}

const protocolCloseCodes: ReadonlySet<number> = new Set(Object.values(closeCodes));

/** RFC 6455's own, and those of the agents' protocol. */
const knownCloseCode = (code: number): boolean =>
  (code >= 1000 && code <= 1015) || protocolCloseCodes.has(code);

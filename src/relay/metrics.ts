/** What the relay counts of itself. Names no key and no value. */
import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';

export interface Gauges {
  readonly connected: boolean;
  readonly queueEntries: number;
  readonly queueBytes: number;
  readonly queueOldestMs: number;
  readonly cacheEntries: number;
  readonly cacheBytes: number;
  readonly followedKeys: number;
  readonly watches: number;
}

export interface RelayMetrics {
  readonly registry: Registry;
  requested(route: string, status: number): void;
}

export const createRelayMetrics = (observe: () => Gauges): RelayMetrics => {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const requests = new Counter({
    name: 'futurestore_relay_requests_total',
    help: 'Requests of local programs, by route and HTTP status (499: the caller had gone).',
    labelNames: ['route', 'status'],
    registers,
  });
  const gauge = (name: string, help: string, read: (gauges: Gauges) => number): void => {
    const made: Gauge = new Gauge({
      name: `futurestore_relay_${name}`,
      help,
      registers,
      collect: (): void => made.set(read(observe())),
    });
  };
  gauge('connected', '1: a server is connected.', ({ connected }) => (connected ? 1 : 0));
  gauge('queue_entries', 'Writes that wait for the servers.', ({ queueEntries }) => queueEntries);
  gauge('queue_bytes', 'Bytes of them.', ({ queueBytes }) => queueBytes);
  gauge(
    'queue_oldest_seconds',
    'How long the first of them has been waiting.',
    ({ queueOldestMs }) => queueOldestMs / 1000,
  );
  gauge('cache_entries', 'Cached values.', ({ cacheEntries }) => cacheEntries);
  gauge('cache_bytes', 'Bytes of them.', ({ cacheBytes }) => cacheBytes);
  gauge(
    'followed_keys',
    'Keys that are followed for prefetch and available.',
    (gauges) => gauges.followedKeys,
  );
  gauge('watches', 'Watches of local programs.', ({ watches }) => watches);
  return {
    registry,
    requested: (route, status) => requests.inc({ route, status }),
  };
};

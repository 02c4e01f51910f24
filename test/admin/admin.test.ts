import { once } from 'node:events';
import { connect } from 'node:net';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createAdminServer, createMetrics } from '../../src/admin/index.ts';
import type { AdminServer, Metrics } from '../../src/admin/index.ts';
import type { GatewayMetrics } from '../../src/gateway/index.ts';
import type { ServerMetrics } from '../../src/server/index.ts';

describe('the admin port', () => {
  let admin: AdminServer;
  let metrics: Metrics;
  let origin: string;
  let tcpPort: number;
  let ready: { ready: boolean; reasons: string[] };
  let live: { live: boolean; reasons: string[] };
  const errors: unknown[] = [];

  beforeEach(async () => {
    ready = { ready: true, reasons: [] };
    live = { live: true, reasons: [] };
    metrics = createMetrics();
    admin = createAdminServer({
      listen: { host: '127.0.0.1', port: 0 },
      readiness: () => {
        if (ready.reasons.includes('throw')) throw new Error('thrown by the test');
        return ready;
      },
      liveness: () => live,
      registry: metrics.registry,
      logger: { error: (fields) => void errors.push(fields) },
    });
    ({ port: tcpPort } = await admin.listen());
    origin = `http://127.0.0.1:${tcpPort}`;
  });

  afterEach(async () => {
    await admin.close();
    metrics.close();
  });

  const get = async (
    path: string,
    method = 'GET',
  ): Promise<{ status: number; type: string | null; text: string }> => {
    const response = await fetch(origin + path, { method });
    return {
      status: response.status,
      type: response.headers.get('content-type'),
      text: await response.text(),
    };
  };

  test('says that the process lives, or why not', async () => {
    expect(await get('/livez')).toMatchObject({ status: 200, text: 'ok\n' });
    live = { live: false, reasons: ['the disk hangs'] };
    expect(await get('/livez')).toMatchObject({ status: 503, text: 'the disk hangs\n' });
  });

  test('says whether agents can be served, or each reason why not on a line of its own', async () => {
    expect(await get('/readyz')).toMatchObject({ status: 200, text: 'ok\n' });
    ready = { ready: false, reasons: ['no leader is known', '1200 entries behind\nthe leader'] };
    expect(await get('/readyz')).toMatchObject({
      status: 503,
      text: 'no leader is known\n1200 entries behind the leader\n',
    });
    ready = { ready: false, reasons: [] };
    expect(await get('/readyz')).toMatchObject({ status: 503, text: 'not ready\n' });
  });

  test('says more when asked to', async () => {
    ready = { ready: false, reasons: ['draining'] };
    expect(await get('/readyz?verbose')).toMatchObject({
      status: 503,
      text: 'ready: no\n  draining\nlive: yes\n',
    });
    expect((await get('/readyz?x=1&verbose=1')).text).toContain('live: yes');
    expect((await get('/readyz?nonverbose')).text).toBe('draining\n');
  });

  test('shows metrics in the format of Prometheus', async () => {
    metrics.leaderChanged();
    const { status, type, text } = await get('/metrics');
    expect(status).toBe(200);
    expect(type).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(text).toMatch(/^futurestore_leader_changes_total 1$/m);
    expect(text).toMatch(/^process_resident_memory_bytes \d+$/m);
  });

  test('lists its pages, and knows no others', async () => {
    expect(await get('/')).toMatchObject({ status: 200, text: expect.stringContaining('/metrics') });
    for (const path of ['/nothing', '/livez/', '/metricsx', '//']) expect((await get(path)).status).toBe(404);
  });

  test('only reads', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'])
      expect((await get('/livez', method)).status).toBe(405);
    expect(await get('/livez', 'HEAD')).toMatchObject({ status: 200, text: '' });
  });

  test('answers 500 when what it shows fails, and goes on', async () => {
    ready = { ready: false, reasons: ['throw'] };
    const { status, text } = await get('/readyz');
    expect(status).toBe(500);
    expect(text).not.toContain('thrown by the test');
    expect(errors).toHaveLength(1);
    expect((await get('/livez')).status).toBe(200);
  });

  test('refuses long headers and what is no HTTP, and goes on', async () => {
    const long = connect(tcpPort, '127.0.0.1');
    long.write(`GET / HTTP/1.1\r\nx: ${'x'.repeat(20_000)}\r\n\r\n`);
    const [answer] = (await once(long, 'data')) as [Buffer];
    expect(answer.toString()).toContain('431');
    long.destroy();
    const garbage = connect(tcpPort, '127.0.0.1');
    garbage.resume().write('\u0016\u0003\u0001 TLS?\r\n\r\n');
    await once(garbage, 'close');
    expect((await get('/livez')).status).toBe(200);
  });

  test('can be closed twice, and with connections open', async () => {
    const held = connect(tcpPort, '127.0.0.1');
    await once(held, 'connect');
    held.resume();
    const ended = once(held, 'close');
    await admin.close();
    await ended;
    await admin.close();
  });
});

describe('metrics', () => {
  const gauges = {
    hasLeader: true,
    isLeader: false,
    term: 7,
    commitIndex: 100,
    appliedIndex: 99,
    proposalsPending: 3,
    keys: 1000,
    waits: 20,
    subscriptions: 30,
    connections: 40,
    sessions: 50,
    draining: true,
  };

  let metrics: Metrics;

  beforeEach(() => {
    metrics = createMetrics();
  });

  afterEach(() => metrics.close());

  const valueOf = async (line: string): Promise<number | undefined> => {
    const text = await metrics.registry.metrics();
    const found = text.split('\n').find((each) => each.startsWith(`${line} `));
    return found === undefined ? undefined : Number(found.slice(line.length + 1));
  };

  test('read the gauges when they are scraped', async () => {
    expect(await valueOf('futurestore_term')).toBe(0);
    let term = 7;
    metrics.observe(() => ({ ...gauges, term }));
    expect(await valueOf('futurestore_term')).toBe(7);
    term = 8;
    expect(await valueOf('futurestore_term')).toBe(8);
    const expected = {
      has_leader: 1,
      is_leader: 0,
      commit_index: 100,
      applied_index: 99,
      proposals_pending: 3,
      keys: 1000,
      waits: 20,
      subscriptions: 30,
      connections: 40,
      sessions: 50,
      draining: 1,
    };
    for (const [name, value] of Object.entries(expected))
      expect(await valueOf(`futurestore_${name}`), name).toBe(value);
  });

  test('count what the server tells', async () => {
    const told: ServerMetrics = metrics;
    told.diskSynced(0.002);
    told.diskSynced(0.2);
    told.applied(0.0002, 17);
    told.proposalsFailed(4);
    told.expired(3);
    told.snapshotSent(true);
    told.snapshotSent(false);
    told.snapshotReceived(false);
    told.requests('write', 5);
    told.requests('write', 6);
    metrics.roundTrip(2, 30);
    expect(await valueOf('futurestore_disk_sync_seconds_bucket{le="0.0025"}')).toBe(1);
    expect(await valueOf('futurestore_disk_sync_seconds_count')).toBe(2);
    expect(await valueOf('futurestore_disk_sync_seconds_sum')).toBeCloseTo(0.202);
    expect(await valueOf('futurestore_apply_seconds_count')).toBe(1);
    expect(await valueOf('futurestore_applied_entries_total')).toBe(17);
    expect(await valueOf('futurestore_proposals_failed_total')).toBe(4);
    expect(await valueOf('futurestore_expired_total')).toBe(3);
    expect(await valueOf('futurestore_snapshots_sent_total')).toBe(1);
    expect(await valueOf('futurestore_snapshots_failed_total{direction="sent"}')).toBe(1);
    expect(await valueOf('futurestore_snapshots_failed_total{direction="received"}')).toBe(1);
    expect(await valueOf('futurestore_requests_total{kind="write"}')).toBe(11);
    expect(await valueOf('futurestore_peer_round_trip_seconds_sum{peer="2"}')).toBeCloseTo(0.03);
  });

  test('count what the gateway tells, with labels that a client cannot multiply', async () => {
    const told: GatewayMetrics = metrics;
    told.refused('PERMISSION_DENIED');
    told.turnedAway('tls');
    told.connectionClosed(4029);
    for (let code = 3000; code < 3100; code++) told.connectionClosed(code);
    for (let code = 4900; code < 5000; code++) told.connectionClosed(code);
    expect(await valueOf('futurestore_refused_total{code="PERMISSION_DENIED"}')).toBe(1);
    expect(await valueOf('futurestore_turned_away_total{stage="tls"}')).toBe(1);
    expect(await valueOf('futurestore_connections_closed_total{code="4029"}')).toBe(1);
    expect(await valueOf('futurestore_connections_closed_total{code="other"}')).toBe(200);
  });

  test('tell how late the event loop was since the last scrape', async () => {
    await new Promise((resolve) => setImmediate(resolve));
    expect(await valueOf('futurestore_event_loop_delay_seconds{quantile="0.99"}')).toBeGreaterThanOrEqual(0);
    const max = await valueOf('futurestore_event_loop_delay_seconds{quantile="1"}');
    expect(max).toBeGreaterThanOrEqual(0);
    expect(max).toBeLessThan(60);
  });

  test('go into the registry that is given', async () => {
    const registry = new Registry();
    const own = createMetrics(registry);
    own.leaderChanged();
    expect(await registry.metrics()).toContain('futurestore_leader_changes_total 1');
    expect(await metrics.registry.metrics()).toContain('futurestore_leader_changes_total 0');
    own.close();
  });
});

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { issue, makeCa } from '../support/certificates.ts';
import { Site } from './support/site.ts';

let site: Site;

beforeEach(async () => {
  site = await Site.start();
});
afterEach(() => site.close());

describe('the connection to the servers', () => {
  test('is tried anew when the servers have turned the relay away for good, with what the profile says by then', async () => {
    const stranger = await issue(await makeCa('another'), { cn: 'web1', client: true });
    let tries = 0;
    const relay = await site.relay({
      makeClient: (options) => {
        tries += 1;
        return site.connect({ ...options, ...(tries === 1 ? stranger : {}) });
      },
    });
    const refused = async (): Promise<unknown> => (await relay.post('/v1/await', { keys: ['nodes/a'] })).body;
    expect(await refused()).toMatchObject({ error: { code: 'UNAUTHENTICATED' } });
    // What is queued meanwhile is sent by the next client.
    const queued = await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one', wait: 'queued' });
    expect(queued).toMatchObject({ status: 202 });
    expect((await relay.ask('/v1/status')).body).toMatchObject({
      connected: false,
      last_error: { code: 'UNAUTHENTICATED' },
    });
    await relay.connected();
    expect(await relay.post('/v1/await', { keys: ['nodes/a'] })).toMatchObject({ status: 200 });
    expect(tries).toBe(2);
  });

  test('ends in good order, and what a caller waits for ends with it', async () => {
    const relay = await site.relay();
    await relay.connected();
    const waiting = relay.post('/v1/await', { keys: ['nodes/a'] });
    waiting.catch(() => undefined);
    await relay.close();
    await expect(waiting).rejects.toThrow();
    await expect(relay.ask('/v1/status')).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('is one, whatever local programs ask', async () => {
    const relay = await site.relay();
    await relay.connected();
    for (const name of ['a', 'b', 'c'])
      await relay.post('/v1/resolve', { key: `nodes/${name}`, value: name });
    await relay.post('/v1/prefetch', { keys: ['nodes/a', 'nodes/b'] });
    await relay.ask('/v1/futures/nodes/a');
    expect(site.connections).toBe(1);
  });
});

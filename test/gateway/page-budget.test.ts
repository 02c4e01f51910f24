import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AnswerBody, Future, RequestBody } from '../../src/protocol/index.ts';
import { issue } from './certificates.ts';
import { startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

/** More than the system's buffers between two sockets take. */
const pagesMax = 32;
const value = new Uint8Array(512 * 1024);

let rig: Rig;
let greedy: TestAgent;
let sibling: TestAgent;

beforeEach(async () => {
  rig = await startGateway({ listPagesPerPrincipalMax: pagesMax });
  greedy = await rig.greeted();
  sibling = await rig.greeted();
});
afterEach(() => rig.close());

const listOf = (name: string): RequestBody => ({
  kind: 'list',
  pattern: `nodes/${name}/**`,
  after: '',
  limit: 1000,
  values: true,
  stale: false,
});
const list = listOf('web1');
const future: Future = {
  key: 'nodes/web1/a',
  generation: 1,
  state: 'resolved',
  revision: 1,
  value,
  contentType: 'application/octet-stream',
  sensitive: false,
  producer: 'puppet:web1',
  changedAtMs: 1,
};

const answer = (connection: number, request: number, futures: readonly Future[]): void => {
  const body: AnswerBody = { kind: 'listed', revision: 1, futures, next: undefined };
  rig.gateway.deliver([{ kind: 'answer', connection, request, body }]);
};

const askForAll = async (): Promise<void> => {
  greedy.send({ requests: Array.from({ length: pagesMax }, (_, index) => ({ id: index + 1, body: list })) });
  await rig.port.until(({ requests }) => requests.length === pagesMax);
};

/** Whether a list of the other connection of the same principal gets to the server. */
const siblingMayList = async (): Promise<boolean> => {
  const before = rig.port.requests.length;
  const id = sibling.request(list);
  const refused = sibling.failure(id).then(({ code }) => code);
  const asked = rig.port.until(({ requests }) => requests.length > before).then(() => 'asked');
  const outcome = await Promise.race([refused, asked]);
  refused.catch(() => undefined);
  if (outcome !== 'asked') expect(outcome).toBe('TOO_MANY_REQUESTS');
  else answer(2, id, []);
  return outcome === 'asked';
};

const socketOf = (agent: TestAgent): Socket => Reflect.get(agent.ws, '_socket') as Socket;

describe('pitfall 43: pages of lists', () => {
  test('are bounded for all connections of a principal together, until its sockets have taken them', async () => {
    socketOf(greedy).pause();
    await askForAll();
    expect(await siblingMayList()).toBe(false);
    for (let id = 1; id <= pagesMax; id += 1) answer(1, id, [future]);
    // They have been answered, and nobody has read them.
    expect(await siblingMayList()).toBe(false);
    const other = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=web2' }) });
    const before = rig.port.requests.length;
    other.request(listOf('web2'));
    await rig.port.until(({ requests }) => requests.length > before);
    socketOf(greedy).resume();
    await greedy.answer(pagesMax);
    await expect.poll(siblingMayList).toBe(true);
  });

  test('count no more when they are cancelled, or their connection has ended', async () => {
    await askForAll();
    const cancel = greedy.request({ kind: 'cancel', request: 1 }, 1_000);
    await greedy.answer(cancel);
    expect(await siblingMayList()).toBe(true);
    const again = greedy.request(list, 2_000);
    await rig.port.until(({ requests }) => requests.some(({ request }) => request === again));
    expect(await siblingMayList()).toBe(false);
    greedy.ws.close();
    await rig.port.until(({ notices }) => notices.some(({ kind }) => kind === 'closed'));
    for (let times = 0; times < pagesMax; times += 1) expect(await siblingMayList()).toBe(true);
  });
});

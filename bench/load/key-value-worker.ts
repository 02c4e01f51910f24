/** A process that makes load on a store of keys and values, as it is told by its parent. */
import process from 'node:process';
import { Turnstile } from '../../test/support/turnstile.ts';
import { answerParent } from './answer-parent.ts';
import type { Done, KeyValueClient } from './key-value-client.ts';
import { connectKeyValue } from './key-value-clients.ts';
import type { KeyValueJob } from './key-value-load.ts';
import { keyOf, value, type LoadDone } from './operations.ts';

const operationOf = (
  { operation }: KeyValueJob,
  lane: number,
): ((client: KeyValueClient, number: number, done: Done) => void) => {
  switch (operation.kind) {
    case 'settle':
      return (client, number, done) => client.put(keyOf(operation.prefix, lane, number), value, done);
    case 'overwrite':
      return (client, number, done) => {
        const key = keyOf('overwrite', (lane * 7919 + number) % operation.keys, 0);
        client.overwrite(key, `${lane}-${number}-`.padEnd(256, 'v'), done);
      };
    case 'get':
      return (client, _number, done) => client.get(operation.key, operation.stale, done);
    default:
      return operation satisfies never;
  }
};

const handshakesAtOnce = 50;

/** Closed loop: every lane sends its next request when it has the answer to the last one. */
const work = async (job: KeyValueJob): Promise<LoadDone> => {
  const turnstile = new Turnstile(handshakesAtOnce);
  const clients = await Promise.all(
    Array.from({ length: job.connections }, async (_, index) => {
      const endpoint = job.endpoints[index % job.endpoints.length];
      if (endpoint === undefined) throw new Error('a load has at least one server');
      const leave = await turnstile.enter();
      const client = await connectKeyValue(endpoint);
      leave();
      return client;
    }),
  );
  const latenciesMs: number[] = [];
  const before = process.cpuUsage();
  const endMs = performance.now() + job.seconds * 1000;
  const lane = (client: KeyValueClient, number: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const operation = operationOf(job, number);
      let count = 0;
      let startedMs = 0;
      const next = (): void => {
        startedMs = performance.now();
        if (startedMs >= endMs) {
          resolve();
          return;
        }
        operation(client, count, answered);
        count += 1;
      };
      const answered: Done = (error) => {
        if (error !== undefined) {
          reject(error);
          return;
        }
        latenciesMs.push(performance.now() - startedMs);
        next();
      };
      next();
    });
  await Promise.all(
    clients.flatMap((client, index) =>
      Array.from({ length: job.outstanding }, (_, slot) => lane(client, index * job.outstanding + slot)),
    ),
  );
  const { user, system } = process.cpuUsage(before);
  for (const client of clients) client.close();
  return { latenciesMs, processorMs: (user + system) / 1000 };
};

answerParent((job) => work(job as KeyValueJob));

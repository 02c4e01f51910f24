/** A process that makes load on futurestore with the client library, as it is told by its parent. */
import process from 'node:process';
import { connect, loadProfile, type Client } from '../../src/client/index.ts';
import { answerParent } from './answer-parent.ts';
import { keyOf, value, type FuturestoreJob, type FuturestoreJobDone } from './futurestore-jobs.ts';

const operationOf = (
  { operation }: FuturestoreJob,
  lane: number,
): ((client: Client, number: number) => Promise<unknown>) => {
  switch (operation.kind) {
    case 'settle':
      return (client, number) => client.resolve(keyOf(operation.prefix, lane, number), value);
    case 'overwrite':
      return (client, number) => {
        const key = keyOf('overwrite', (lane * 7919 + number) % operation.keys, 0);
        return client.resolve(key, `${lane}-${number}-`.padEnd(256, 'v'), { supersede: true });
      };
    case 'get':
      return (client) => client.get(operation.key, { stale: operation.stale });
    default:
      return operation satisfies never;
  }
};

/** Closed loop: every lane sends its next request when it has the answer to the last one. */
const work = async (job: FuturestoreJob): Promise<FuturestoreJobDone> => {
  const profile = loadProfile(job.profile);
  const clients = Array.from({ length: job.connections }, (_, index) =>
    connect({ ...profile, endpoints: [job.endpoints[index % job.endpoints.length] ?? ''] }),
  );
  await Promise.all(clients.map((client) => client.get('warm/up')));
  const latenciesMs: number[] = [];
  const before = process.cpuUsage();
  const endMs = performance.now() + job.seconds * 1000;
  const lanes = clients.flatMap((client, index) =>
    Array.from({ length: job.outstanding }, async (_, slot) => {
      const operation = operationOf(job, index * job.outstanding + slot);
      for (let number = 0; ; number += 1) {
        const startedMs = performance.now();
        if (startedMs >= endMs) return;
        await operation(client, number);
        latenciesMs.push(performance.now() - startedMs);
      }
    }),
  );
  await Promise.all(lanes);
  const { user, system } = process.cpuUsage(before);
  await Promise.all(clients.map((client) => client.close()));
  return { latenciesMs, processorMs: (user + system) / 1000 };
};

answerParent((job) => work(job as FuturestoreJob));

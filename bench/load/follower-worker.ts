/** A process of connections that follow one key, and of who changes it, as it is told by its parent. */
import process from 'node:process';
import { createSecureContext } from 'node:tls';
import { connect, loadProfile } from '../../src/client/index.ts';
import { answerParent } from './answer-parent.ts';
import { EtcdClient } from './etcd-client.ts';
import { Follower } from './follower.ts';
import type { FollowerJob, FollowerJobDone } from './follower-jobs.ts';
import { value } from './operations.ts';
import { Turnstile } from '../../test/support/turnstile.ts';
import { processorSeconds } from '../machine.ts';

interface Followers {
  change(text: string): Promise<unknown>;
}

const handshakesAtOnce = 50;

/** One after the other on each server, a few at a time. */
const connectAll = async (
  { endpoints, connections }: FollowerJob,
  follow: (endpoint: string) => Promise<unknown>,
): Promise<void> => {
  const turnstile = new Turnstile(handshakesAtOnce);
  await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const leave = await turnstile.enter();
      await follow(endpoints[index % endpoints.length] ?? '');
      leave();
    }),
  );
};

const onFuturestore = async (
  job: FollowerJob & { readonly system: 'futurestore' },
  told: () => void,
): Promise<Followers> => {
  const profile = loadProfile(job.profile);
  const { ca, cert, key } = profile;
  const context = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.3' });
  await connectAll(
    job,
    (endpoint) => new Follower({ endpoint, context, key: job.key, subscriptions: job.each, told }).ready,
  );
  const producer = connect({ ...profile, endpoints: job.endpoints.slice(0, 1) });
  await producer.get(job.key);
  return { change: (text) => producer.resolve(job.key, text, { supersede: true }) };
};

const onEtcd = async (
  job: FollowerJob & { readonly system: 'etcd' },
  told: () => void,
): Promise<Followers> => {
  const clientOf = (endpoint: string): EtcdClient =>
    new EtcdClient(endpoint, job.ca === undefined ? undefined : { ca: job.ca });
  const keys = Array.from({ length: job.each }, () => job.key);
  await connectAll(job, (endpoint) => clientOf(endpoint).watch(keys, told));
  const producer = clientOf(job.endpoints[0] ?? '');
  return { change: (text) => producer.put(job.key, text) };
};

const work = async (job: FollowerJob): Promise<FollowerJobDone> => {
  let told = 0;
  let goal = Infinity;
  let reached = (): void => {};
  const count = (): void => {
    told += 1;
    if (told === goal) reached();
  };
  const followers = await (job.system === 'etcd' ? onEtcd(job, count) : onFuturestore(job, count));
  const changesMs: number[] = [];
  const serversBefore = processorSeconds(job.pids);
  const before = process.cpuUsage();
  for (let change = 0; change < job.changes; change += 1) {
    goal = told + job.connections * job.each;
    const all = new Promise<void>((resolve) => (reached = resolve));
    const startedMs = performance.now();
    await followers.change(`${change}${value}`);
    await all;
    changesMs.push(performance.now() - startedMs);
  }
  const { user, system } = process.cpuUsage(before);
  // Its connections end with the process.
  setImmediate(() => setTimeout(() => process.exit(0), 500));
  return {
    changesMs,
    loadSeconds: (user + system) / 1e6,
    serverSeconds: processorSeconds(job.pids) - serversBefore,
  };
};

answerParent((job) => work(job as FollowerJob));

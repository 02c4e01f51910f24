/** What each example is made of: its agents, and how one sees that the thing really works. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

export interface ExampleAgent {
  readonly name: string;
  /** In the example's folder. */
  readonly manifest: string;
}

/** Where the agents of a running example have their things. */
export interface Places {
  readonly work: (agent: string, file: string) => string;
  readonly address: (agent: string) => string;
  readonly port: (agent: string) => number;
}

export interface Example {
  readonly name: string;
  readonly title: string;
  readonly agents: readonly ExampleAgent[];
  /** Programs that it needs. */
  readonly programs: readonly string[];
  /** Throws, or says what is the case. */
  readonly check: (places: Places) => string;
}

const curl = (...args: readonly string[]): string =>
  execFileSync('curl', ['-sS', '--max-time', '5', ...args], { encoding: 'utf8' }).trim();

const expectation = (holds: boolean, otherwise: string): void => {
  if (!holds) throw new Error(otherwise);
};

const joined = ({ work }: Places): string => {
  const nodes = readFileSync(work('cp1', 'nodes'), 'utf8').trim().split('\n').toSorted();
  expectation(nodes.join() === 'worker1,worker2', `these have joined: ${nodes.join(', ')}`);
  return `the API knows ${nodes.join(' and ')}`;
};

const pages = ({ address, port }: Places): string => {
  const texts = ['web1', 'web2'].map((name) => curl(`http://${address(name)}:${port(name)}/`));
  texts.forEach((text, at) => expectation(text === `42 rows for web${at + 1}`, `a page says ${text}`));
  return `the web servers show what the database gave them: ${texts.join('; ')}`;
};

const members = ({ port, work }: Places): string => {
  const endpoint = `http://127.0.0.1:${port('etcd4')}`;
  const env = { ...process.env, ETCDCTL_API: '3' };
  const run = (...args: readonly string[]): string =>
    execFileSync('etcdctl', ['--endpoints', endpoint, ...args], { encoding: 'utf8', env }).trim();
  const started = run('member', 'list')
    .split('\n')
    .filter((line) => line.includes('started'));
  expectation(
    started.length === 4,
    `etcd has ${started.length} members that are started: see ${work('etcd4', 'etcd.log')}`,
  );
  run('put', 'from', 'futures');
  expectation(run('get', 'from', '--print-value-only') === 'futures', 'etcd did not keep what was put');
  return 'four etcd members are started, and serve a put and a get through the fourth';
};

export const examples: readonly Example[] = [
  {
    name: 'kubernetes',
    title: 'a control plane publishes a join token and the hash of its key; two workers wait, and join',
    agents: [
      { name: 'worker1', manifest: 'worker.pp' },
      { name: 'worker2', manifest: 'worker.pp' },
      { name: 'cp1', manifest: 'control-plane.pp' },
    ],
    programs: ['python3', 'openssl', 'curl'],
    check: joined,
  },
  {
    name: 'database',
    title: 'a database waits for the addresses of its web tier, which waits for its address and password',
    agents: [
      { name: 'db1', manifest: 'database.pp' },
      { name: 'web1', manifest: 'web.pp' },
      { name: 'web2', manifest: 'web.pp' },
    ],
    programs: ['python3', 'openssl', 'curl'],
    check: pages,
  },
  {
    name: 'etcd',
    title: 'three etcd members wait for the peer URLs of all, and the first one takes in a fourth',
    agents: [
      { name: 'etcd1', manifest: 'member.pp' },
      { name: 'etcd2', manifest: 'member.pp' },
      { name: 'etcd3', manifest: 'member.pp' },
      { name: 'etcd4', manifest: 'fourth.pp' },
    ],
    programs: ['etcd', 'etcdctl', 'curl'],
    check: members,
  },
];

export const hasProgram = (name: string): boolean =>
  (process.env['PATH'] ?? '').split(':').some((directory) => existsSync(`${directory}/${name}`));

/**
 * etcd, as Debian's `etcd-server` has it: three members, durable, with its defaults (heartbeat 100 ms, election timeout
 * 1 s, which are also ours). Its clients show no certificate, ours do: h2load can't, and it favours etcd.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, freeBasePort } from '../../test/support/process-cluster.ts';
import { EtcdClient } from '../load/etcd-client.ts';
import { makeCertificates, type CertificateFiles } from './certificates.ts';
import { endProgram, pidOf, startProgram, versionOf } from './programs.ts';
import type { RunningSystem, System } from './system.ts';

const members = [0, 1, 2];

interface Layout {
  readonly directory: string;
  readonly port: number;
  readonly files: CertificateFiles | undefined;
}

const startMember = ({ directory, port, files }: Layout, index: number): ChildProcess => {
  const scheme = files === undefined ? 'http' : 'https';
  const client = `${scheme}://127.0.0.1:${port + index}`;
  const peer = (at: number): string => `${scheme}://127.0.0.1:${port + 10 + at}`;
  const tls =
    files === undefined
      ? []
      : [
          `--cert-file=${files.cert}`,
          `--key-file=${files.key}`,
          `--peer-cert-file=${files.cert}`,
          `--peer-key-file=${files.key}`,
          `--peer-trusted-ca-file=${files.ca}`,
          '--peer-client-cert-auth',
        ];
  return startProgram(
    'etcd',
    [
      `--name=m${index}`,
      `--data-dir=${join(directory, `m${index}`)}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer(index)}`,
      `--initial-advertise-peer-urls=${peer(index)}`,
      `--initial-cluster=${members.map((at) => `m${at}=${peer(at)}`).join(',')}`,
      '--initial-cluster-token=bench',
      '--initial-cluster-state=new',
      ...tls,
    ],
    join(directory, `m${index}.log`),
  );
};

export interface RunningEtcd extends RunningSystem {
  /** Of one member. */
  client(index: number): EtcdClient;
}

const start = async (withTls: boolean): Promise<RunningEtcd> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-etcd-'));
  const port = await freeBasePort();
  const files = withTls ? await makeCertificates(directory) : undefined;
  const layout = { directory, port, files };
  const children = members.map((index) => startMember(layout, index));
  const endpoints = members.map((index) => `${withTls ? 'https' : 'http'}://127.0.0.1:${port + index}`);
  const ca = files === undefined ? undefined : readFileSync(files.ca, 'utf8');
  const client = (index: number): EtcdClient => new EtcdClient(endpoints[index] ?? '', ca);
  const answers = async (index: number): Promise<boolean> => {
    const one = client(index);
    try {
      await one.range('bench/ready', { serializable: false });
      return true;
    } catch {
      return false;
    } finally {
      one.close();
    }
  };
  for (const index of members) await eventually(`etcd member ${index} answers`, () => answers(index));
  return {
    endpoints,
    client,
    get pids() {
      return children.map(pidOf);
    },
    leader: async () => {
      for (const index of members) {
        const one = client(index);
        try {
          const { leader, member } = await one.status();
          if (leader === member) return index;
        } catch {
          // This one is down.
        } finally {
          one.close();
        }
      }
      throw new Error('no member of etcd says that it leads');
    },
    kill: async (index) => {
      const child = children[index];
      if (child !== undefined) await endProgram(child, 'SIGKILL');
    },
    restart: async (index) => {
      children[index] = startMember(layout, index);
      await eventually(`etcd member ${index} answers again`, () => answers(index));
    },
    stop: async () => {
      await Promise.all(children.map((child) => endProgram(child, 'SIGKILL')));
      rmSync(directory, { recursive: true, force: true });
    },
  };
};

const version = (): string | undefined => versionOf('etcd', ['--version'], /etcd Version: (\S+)/);

export const etcd: System<RunningEtcd> = { name: 'etcd', version, start: () => start(true) };

export const etcdWithoutTls: System<RunningEtcd> = {
  name: 'etcd, no TLS',
  version,
  start: () => start(false),
};

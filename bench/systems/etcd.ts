/**
 * etcd, as Debian's `etcd-server` has it: three members, durable, with its defaults (heartbeat 100 ms, election timeout
 * 1 s, which are also ours). Its clients show no certificate where nothing else is said, ours do: h2load can't, and it
 * favours etcd.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Credentials } from '../../src/cli/authority/certificates.ts';
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
  /** Authorities of clients, in a file; undefined: they show no certificate. */
  readonly clientsCa: string | undefined;
}

const startMember = ({ directory, port, files, clientsCa }: Layout, index: number): ChildProcess => {
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
          ...(clientsCa === undefined ? [] : [`--trusted-ca-file=${clientsCa}`, '--client-cert-auth']),
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
  /** PEM, of the members; undefined: they are without TLS. */
  readonly ca: string | undefined;
  /** Of one member. */
  client(index: number): EtcdClient;
}

/** Of clients that are known by the names in their certificates. */
export interface EtcdUsers {
  /** PEM: signs their certificates. */
  readonly authority: string;
  /** What `client` shows. */
  readonly own: Credentials;
}

/** `users`: with TLS only. */
const start = async (withTls: boolean, users?: EtcdUsers): Promise<RunningEtcd> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-etcd-'));
  const port = await freeBasePort();
  const files = withTls ? await makeCertificates(directory) : undefined;
  const ca = files === undefined ? undefined : readFileSync(files.ca, 'utf8');
  const clientsCa = users === undefined ? undefined : join(directory, 'clients.pem');
  // A member is a client of its own, with its certificate of a server.
  if (users !== undefined && clientsCa !== undefined) writeFileSync(clientsCa, `${ca}${users.authority}`);
  const layout = { directory, port, files, clientsCa };
  const children = members.map((index) => startMember(layout, index));
  const endpoints = members.map((index) => `${withTls ? 'https' : 'http'}://127.0.0.1:${port + index}`);
  const shown = users === undefined ? {} : { cert: users.own.certificate, key: users.own.privateKey };
  const tls = ca === undefined ? undefined : { ca, ...shown };
  const client = (index: number): EtcdClient => new EtcdClient(endpoints[index] ?? '', tls);
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
    ca,
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

/** Another one beside it, with TLS. */
export const startEtcdWithUsers = (users: EtcdUsers): Promise<RunningEtcd> => start(true, users);

export const etcdWithoutTls: System<RunningEtcd> = {
  name: 'etcd, no TLS',
  version,
  start: () => start(false),
};

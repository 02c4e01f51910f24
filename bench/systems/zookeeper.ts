/**
 * ZooKeeper, as Debian's `zookeeper` has it: three servers, durable, without TLS (which favours it: its TLS wants
 * another network layer).
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, freeBasePort } from '../../test/support/process-cluster.ts';
import type { KeyValueEndpoint } from '../load/key-value-client.ts';
import { ZookeeperClient } from '../load/zookeeper-client.ts';
import { endProgram, pidOf, startProgram, versionOf } from './programs.ts';
import type { KeyValueSystem } from './system.ts';

const servers = [0, 1, 2];
const archive = '/usr/share/java/zookeeper.jar';

export const zookeeper: KeyValueSystem = {
  name: 'ZooKeeper',
  version: () =>
    existsSync(archive)
      ? versionOf(
          'java',
          ['-cp', archive, 'org.apache.zookeeper.version.VersionInfoMain'],
          /version (\d[\d.]*)/,
        )
      : undefined,
  start: async () => {
    const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-zookeeper-'));
    const port = await freeBasePort();
    const children = servers.map((index) => {
      const data = join(directory, `z${index}`);
      mkdirSync(data);
      writeFileSync(join(data, 'myid'), `${index + 1}\n`);
      const file = join(directory, `z${index}.cfg`);
      const settings = [
        'tickTime=2000',
        'initLimit=10',
        'syncLimit=5',
        `dataDir=${data}`,
        'clientPortAddress=127.0.0.1',
        `clientPort=${port + index}`,
        'maxClientCnxns=0',
        'admin.enableServer=false',
        ...servers.map((at) => `server.${at + 1}=127.0.0.1:${port + 10 + at}:${port + 20 + at}`),
      ];
      writeFileSync(file, `${settings.join('\n')}\n`);
      const main = 'org.apache.zookeeper.server.quorum.QuorumPeerMain';
      return startProgram('java', ['-cp', archive, main, file], join(directory, `z${index}.log`));
    });
    const endpoints = servers.map((index): KeyValueEndpoint => {
      return { store: 'zookeeper', host: '127.0.0.1', port: port + index, ca: undefined };
    });
    for (const endpoint of endpoints) {
      await eventually('a ZooKeeper server takes a client', async () => {
        try {
          const client = await ZookeeperClient.connect(endpoint);
          client.close();
          return true;
        } catch {
          return false;
        }
      });
    }
    return {
      endpoints,
      pids: children.map(pidOf),
      stop: async () => {
        await Promise.all(children.map((child) => endProgram(child, 'SIGKILL')));
        rmSync(directory, { recursive: true, force: true });
      },
    };
  },
};

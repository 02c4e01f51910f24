/**
 * NATS JetStream's key-value store, as Debian's `nats-server` has it: three servers, a bucket on all three, TLS. It does
 * not sync its disk with each write (by default every two minutes), which favours it.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, freeBasePort, sleep } from '../../test/support/process-cluster.ts';
import type { KeyValueEndpoint } from '../load/key-value-client.ts';
import { NatsClient } from '../load/nats-client.ts';
import { makeCertificates } from './certificates.ts';
import { endProgram, pidOf, startProgram, versionOf } from './programs.ts';
import type { KeyValueSystem } from './system.ts';

const servers = [0, 1, 2];

export const nats: KeyValueSystem = {
  name: 'NATS',
  version: () => versionOf('nats-server', ['--version'], /v(\d\S+)/),
  start: async () => {
    const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-nats-'));
    const port = await freeBasePort();
    const files = await makeCertificates(directory);
    const tls = `tls { cert_file: "${files.cert}", key_file: "${files.key}", ca_file: "${files.ca}" }`;
    const startServer = (index: number): ChildProcess => {
      const routes = servers.map((at) => `nats-route://127.0.0.1:${port + 10 + at}`).join(', ');
      const file = join(directory, `n${index}.conf`);
      writeFileSync(
        file,
        `server_name: n${index}
listen: "127.0.0.1:${port + index}"
jetstream { store_dir: "${join(directory, `n${index}`)}", max_file_store: 20GB, max_memory_store: 1GB }
cluster { name: bench, listen: "127.0.0.1:${port + 10 + index}", routes: [${routes}], ${tls} }
${tls}
`,
      );
      return startProgram('nats-server', ['-c', file], join(directory, `n${index}.log`));
    };
    const children = servers.map(startServer);
    const ca = readFileSync(files.ca, 'utf8');
    const endpoints = servers.map((index): KeyValueEndpoint => {
      return { store: 'nats', host: '127.0.0.1', port: port + index, ca };
    });
    await eventually('NATS has made a bucket', async () => {
      const [first] = endpoints;
      if (first === undefined) return false;
      try {
        const client = await NatsClient.connect(first);
        try {
          // Before the servers have found each other nobody may answer at all.
          return await Promise.race([
            client.makeBucket(servers.length).then(() => true),
            sleep(2000).then(() => false),
          ]);
        } finally {
          client.close();
        }
      } catch {
        return false;
      }
    });
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

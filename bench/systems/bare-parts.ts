/**
 * What a durable write on three servers takes at least, of the same parts: WebSockets over TLS, the shipped codec, three
 * LevelDBs with synced batches, a majority. Without all that makes a store of them: no leader, no log that could be
 * corrected, no state, no sessions, no policies.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freeBasePort } from '../../test/support/process-cluster.ts';
import type { KeyValueEndpoint } from '../load/key-value-client.ts';
import type { BareServerJob } from './bare-server-worker.ts';
import { makeCertificates } from './certificates.ts';
import { endProgram, pidOf } from './programs.ts';
import type { KeyValueSystem } from './system.ts';

const servers = [0, 1, 2];

/** Resolves when it takes writes. */
const startServer = (job: BareServerJob): Promise<ChildProcess> =>
  new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(new URL('bare-server-worker.js', import.meta.url)));
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`a server of bare parts ended with ${code}`)));
    child.once('message', () => resolve(child));
    child.send(job);
  });

export const bareParts: KeyValueSystem = {
  name: 'bare parts',
  version: () => 'of this build',
  start: async () => {
    const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-bare-'));
    const port = await freeBasePort();
    const files = await makeCertificates(directory);
    const [ca, cert, key] = [files.ca, files.cert, files.key].map((file) => readFileSync(file, 'utf8'));
    if (ca === undefined || cert === undefined || key === undefined) throw new Error('it has no certificate');
    const peersPort = (index: number): number => port + 10 + index;
    const children = await Promise.all(
      servers.map((index) =>
        startServer({
          directory: join(directory, `b${index}`),
          agentsPort: port + index,
          peersPort: peersPort(index),
          others: servers.filter((other) => other !== index).map(peersPort),
          tls: { ca, cert, key },
        }),
      ),
    );
    return {
      endpoints: servers.map((index): KeyValueEndpoint => {
        return { store: 'futurestore', host: '127.0.0.1', port: port + index, ca, identity: { cert, key } };
      }),
      pids: children.map(pidOf),
      stop: async () => {
        await Promise.all(children.map((child) => endProgram(child, 'SIGKILL')));
        rmSync(directory, { recursive: true, force: true });
      },
    };
  },
};

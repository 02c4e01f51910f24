import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { initCluster } from '../../src/cli/authority/cluster-directory.ts';
import { CertificateReload } from '../../src/cli/certificate-reload.ts';
import { readServerConfiguration } from '../../src/cli/server-files.ts';
import { fileReader } from '../../src/gateway/index.ts';
import { nowMs, temporaryDirectory } from './support/command.ts';

let directory: ReturnType<typeof temporaryDirectory>;
const at = (...path: string[]): string => join(directory.path, ...path);

beforeEach(async () => {
  directory = temporaryDirectory();
  await initCluster({ directory: directory.path, servers: 2, hosts: [], basePort: 7421, nowMs });
});
afterEach(() => directory.remove());

/** What was given to the parts of a server, and what was said. */
const start = () => {
  const taken: string[] = [];
  const problems: string[] = [];
  const reload = new CertificateReload({
    configuration: readServerConfiguration(at('server-1', 'server.yaml')),
    gateway: {
      replaceCertificate: ({ cert }) => void taken.push(`agents ${cert}`),
      replaceFileRealms: (realms) => {
        taken.push(`realms ${realms['agents']?.tls?.issuer ?? ''}`);
        return Promise.resolve();
      },
      lookForLists: () => {
        taken.push('lists');
        return Promise.resolve();
      },
    },
    transport: { replaceCertificates: ({ cert }) => void taken.push(`peers ${String(cert)}`) },
    files: fileReader,
    logger: {
      info() {},
      error: (fields) => void problems.push('problem' in fields ? String(fields.problem) : ''),
    },
    now: () => nowMs,
  });
  return { reload, taken, problems };
};

const copy = (from: string, to: string): void => copyFileSync(at(from), at(to));
const text = (path: string): string => readFileSync(at(path), 'utf8');

describe('certificates of a running server', () => {
  test('are left alone while their files stay as they are', async () => {
    const { reload, taken } = start();
    await reload.look();
    await reload.look();
    expect(taken).toEqual([]);
  });

  test('are taken anew, once, when their files have changed and stand still', async () => {
    const { reload, taken, problems } = start();
    copy('server-2/server.pem', 'server-1/server.pem');
    await reload.look();
    // The key is still the old one's: in the middle of a change nothing is taken.
    expect([taken, problems]).toEqual([[], []]);
    copy('server-2/server.key', 'server-1/server.key');
    await reload.look();
    await reload.look();
    await reload.look();
    expect(taken).toEqual([`agents ${text('server-2/server.pem')}`]);
  });

  test('that cannot be used are told once, and tried again when their files change', async () => {
    const { reload, taken, problems } = start();
    const good = text('server-1/peer.pem');
    writeFileSync(at('server-1/peer.pem'), 'broken');
    for (let round = 0; round < 4; round += 1) await reload.look();
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain('peer.pem holds no certificate');
    copy('server-2/peer.pem', 'server-1/peer.pem');
    copy('server-2/peer.key', 'server-1/peer.key');
    for (let round = 0; round < 3; round += 1) await reload.look();
    expect(problems[1]).toContain('this server is server-1');
    expect(taken).toEqual([]);
    expect(good).not.toBe(text('server-1/peer.pem'));
  });

  test('of realms are read from the files that the policy names', async () => {
    const { reload, taken } = start();
    copy('ca/servers.pem', 'ca/agents.pem');
    for (let round = 0; round < 2; round += 1) await reload.look();
    expect(taken).toEqual([`realms ${text('ca/servers.pem')}`]);
  });

  test('are all read at once when somebody says so, revocation lists as well', async () => {
    const { reload, taken } = start();
    await reload.takeAll();
    expect(taken.map((line) => line.split(' ')[0])).toEqual(['agents', 'peers', 'realms', 'lists']);
  });
});

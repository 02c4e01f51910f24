import { chmodSync, copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { initCluster } from '../../src/cli/authority/cluster-directory.ts';
import { readServerConfiguration, readServerFiles } from '../../src/cli/server-files.ts';
import type { FuturestoreError } from '../../src/protocol/index.ts';
import { nowMs, temporaryDirectory } from './support/command.ts';

let directory: ReturnType<typeof temporaryDirectory>;
const at = (...path: string[]): string => join(directory.path, ...path);

beforeEach(async () => {
  directory = temporaryDirectory();
  await initCluster({ directory: directory.path, servers: 2, hosts: [], basePort: 7421, nowMs });
});
afterEach(() => directory.remove());

const read = (atMs = nowMs) => readServerFiles(readServerConfiguration(at('server-1', 'server.yaml')), atMs);

const problem = (atMs?: number): string => {
  try {
    read(atMs);
  } catch (error) {
    expect(error).toMatchObject({ code: 'CONFIGURATION_INVALID' });
    expect((error as FuturestoreError).message).not.toContain('PRIVATE KEY');
    return (error as FuturestoreError).message;
  }
  throw new Error('the files were accepted');
};

describe('the files of a server', () => {
  test('what init made is accepted', () => {
    const files = read();
    expect(files.policies.document.realms['agents']?.tls?.issuer).toContain('BEGIN CERTIFICATE');
    expect(files.policies.scopeFor({ realm: 'agents', name: 'web1' }).allows('get', 'nodes/web1/x')).toBe(
      true,
    );
    expect(files.peers.ca).toContain('BEGIN CERTIFICATE');
  });

  test('a file that is missing or cannot be read is named', () => {
    rmSync(at('server-1', 'peer.key'));
    expect(problem()).toBe(
      `cannot read the private key of peers ${at('server-1', 'peer.key')}: it does not exist`,
    );
    expect(() => readServerConfiguration(at('none.yaml'))).toThrow(
      /cannot read the configuration .* it does not exist/,
    );
    expect(() => readServerConfiguration(at('server-1'))).toThrow(/it is a directory/);
  });

  test('pitfall 55: a peer certificate of another name is refused', () => {
    for (const ending of ['pem', 'key'])
      copyFileSync(at('server-2', `peer.${ending}`), at('server-1', `peer.${ending}`));
    expect(problem()).toContain('peer.pem is of "server-2", but this server is server-1');
  });

  test('a key of another certificate is refused', () => {
    copyFileSync(at('server-1', 'peer.key'), at('server-1', 'server.key'));
    chmodSync(at('server-1', 'server.key'), 0o600);
    expect(problem()).toContain('server.key is not the private key of');
  });

  test('an expired certificate is refused at the start, not at the first handshake', () => {
    expect(problem(nowMs + 826 * 24 * 3600 * 1000)).toMatch(/peer\.pem has expired at/);
  });

  test('what holds no certificate or key is refused', () => {
    writeFileSync(at('server-1', 'server.key'), 'nothing');
    expect(problem()).toContain('server.key holds no usable private key in PEM form');
    writeFileSync(at('ca', 'servers.pem'), 'nothing');
    expect(problem()).toContain('servers.pem holds no certificate in PEM form');
  });

  test('a policy that contradicts itself is refused with its place', () => {
    const realm = 'agents: { tls: { issuer: ca/agents.pem, identity: cn } }';
    const binding = '{ realm: agents, policies: [none] }';
    writeFileSync(at('policy.yaml'), `realms: { ${realm} }\npolicies: {}\nbindings: [${binding}]\n`);
    expect(problem()).toMatch(/policy\.yaml: .*bindings\[0\].*there is no policy 'none'/);
  });
});

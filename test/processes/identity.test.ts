import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { issueLeaf } from '../../src/cli/authority/certificates.ts';
import { audience, issuer, token, tokenKey } from '../gateway/token-issuer.ts';
import { eventually, ProcessCluster, run } from '../support/process-cluster.ts';

let cluster: ProcessCluster;
let hangUp: () => void;

beforeAll(async () => {
  cluster = await ProcessCluster.create({ servers: 1 });
  const key = await tokenKey();
  writeFileSync(cluster.path('keys.json'), JSON.stringify({ keys: [key.jwk] }));
  writeFileSync(cluster.path('token'), `${await token({ key: key.key })}\n`);
  const file = cluster.path('policy.yaml');
  const policy = parse(readFileSync(file, 'utf8')) as {
    realms: Record<string, unknown>;
    bindings: unknown[];
  };
  policy.realms['ci'] = {
    jwt: { issuer, audience, algorithms: ['ES256'], keys: 'keys.json', identity: 'sub' },
    vars: { node: 'cn' },
  };
  policy.bindings.push({ realm: 'ci', policies: ['agent'] });
  writeFileSync(file, stringify(policy));
  const child = cluster.startServer(1);
  hangUp = () => child.kill('SIGHUP');
  await cluster.ready();
});
afterAll(async () => {
  await cluster?.close();
});

const port = (): number => Number(/:(\d+)$/.exec(endpoints()[0] ?? '')?.[1]);
const endpoints = (): string[] =>
  (parse(readFileSync(cluster.path('admin.yaml'), 'utf8')) as { endpoints: string[] }).endpoints;

/** Of the certificate that agents are shown. */
const serialShown = async (): Promise<string | undefined> => {
  const socket = connectTls({ port: port(), host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { serialNumber } = socket.getPeerX509Certificate() ?? {};
  socket.destroy();
  return serialNumber;
};

describe('a server', () => {
  test('serves the command with a token alone, from a profile or an option', async () => {
    const profile = cluster.path('ci.yaml');
    writeFileSync(profile, stringify({ endpoints: endpoints(), ca: 'ca/servers.pem', token_file: 'token' }));
    const key = 'nodes/build-7/out/x';
    expect(await run(['resolve', key, 'yes', '--profile', profile])).toMatchObject({ code: 0 });
    const bare = cluster.path('bare.yaml');
    writeFileSync(bare, stringify({ endpoints: endpoints(), ca: 'ca/servers.pem' }));
    const file = cluster.path('token');
    expect(await run(['get', key, '--profile', bare, '--token-file', file])).toMatchObject({ stdout: 'yes' });
    const other = await run(['get', 'nodes/web1/x', '--profile', profile]);
    expect(other).toMatchObject({ code: 5, stderr: expect.stringContaining('ci:build-7 may not get') });
  });

  test('shows its new certificate after SIGHUP, goes on with the old one where the new is broken, and lives', async () => {
    const before = await serialShown();
    const authority = {
      certificate: readFileSync(cluster.path('ca', 'servers.pem'), 'utf8'),
      privateKey: readFileSync(cluster.path('ca', 'servers.key'), 'utf8'),
    };
    const options = { commonName: 'server-1', hosts: ['127.0.0.1'], server: true, client: false };
    const next = await issueLeaf(authority, options, Date.now());
    const { serialNumber } = new X509Certificate(next.certificate);
    writeFileSync(cluster.serverPath(1, 'server.pem'), 'broken');
    hangUp();
    await eventually('the broken one is told', () => Promise.resolve(/cannot be used/.test(cluster.log(1))));
    expect(await serialShown()).toBe(before);
    writeFileSync(cluster.serverPath(1, 'server.pem'), next.certificate);
    writeFileSync(cluster.serverPath(1, 'server.key'), next.privateKey);
    hangUp();
    await eventually('the new one is shown', async () => (await serialShown()) === serialNumber);
    expect(cluster.isRunning(1)).toBe(true);
    expect(await run(['status', '--profile', cluster.path('admin.yaml')])).toMatchObject({ code: 0 });
    const secret = readFileSync(cluster.path('token'), 'utf8').trim();
    expect(cluster.log(1)).not.toContain(secret);
  });
});

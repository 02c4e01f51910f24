import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve as resolvePath } from 'node:path';
import { chromium } from 'playwright-core';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import type { Client } from '../../src/client/index.ts';
import { audience, issuer, token, tokenKey } from '../gateway/token-issuer.ts';
import { eventually, ProcessCluster } from '../support/process-cluster.ts';

const directories = (process.env['PATH'] ?? '').split(delimiter);
/** By Debian's name, and others'. */
const executable = ['chromium', 'chromium-browser', 'google-chrome']
  .flatMap((name) => directories.map((directory) => join(directory, name)))
  .find((file) => existsSync(file));
if (executable === undefined) {
  console.warn('SKIPPED: there is no browser on this machine, so no page is an agent (Debian: chromium)');
}

interface Outcome {
  readonly result?: unknown;
  readonly error?: string;
}

/** A page that asks the server, in a context of its own. */
interface OpenedPage {
  run(name: string, ...args: readonly string[]): Promise<Outcome>;
}

const args = [
  '--no-sandbox',
  // The servers' own CA is none of the browser's.
  '--ignore-certificate-errors',
  // It would ask whether a page of some site may talk to this machine.
  '--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets',
];
const allowedOrigin = 'https://console.example';
const pageText = readFileSync(resolvePath('test', 'processes', 'browser', 'page.html'), 'utf8');

describe.skipIf(executable === undefined)('a page in a browser', () => {
  let cluster: ProcessCluster;
  let browser: Browser;
  let admin: Client;
  let url: string;
  let credential: string;

  beforeAll(async () => {
    cluster = await ProcessCluster.create({ servers: 1 });
    const key = await tokenKey();
    credential = await token({ key: key.key });
    writeFileSync(cluster.path('keys.json'), JSON.stringify({ keys: [key.jwk] }));
    const policyFile = cluster.path('policy.yaml');
    const policy = parse(readFileSync(policyFile, 'utf8')) as {
      realms: Record<string, unknown>;
      bindings: unknown[];
    };
    policy.realms['ci'] = {
      jwt: { issuer, audience, algorithms: ['ES256'], keys: 'keys.json', identity: 'sub' },
      vars: { node: 'cn' },
    };
    policy.bindings.push({ realm: 'ci', policies: ['agent'] });
    writeFileSync(policyFile, stringify(policy));
    const settings = parse(readFileSync(cluster.configuration(1), 'utf8')) as {
      agents: { origins?: string[] };
    };
    settings.agents.origins = [allowedOrigin];
    writeFileSync(cluster.configuration(1), stringify(settings));
    url = `wss://127.0.0.1:${cluster.port}/`;
    cluster.startServer(1);
    const started = [chromium.launch({ executablePath: executable ?? '', args }), cluster.ready()] as const;
    [browser] = await Promise.all(started);
    admin = await cluster.connect();
  });
  afterAll(async () => {
    await browser?.close();
    await cluster?.close();
  });

  /** Served to the browser as if from that origin. */
  const open = async (origin: string): Promise<OpenedPage> => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.route(`${origin}/**`, (route) => route.fulfill({ contentType: 'text/html', body: pageText }));
    await page.goto(`${origin}/`);
    return {
      run: async (name, ...args) => {
        const call = `run(${[name, ...args].map((argument) => JSON.stringify(argument)).join(', ')})`;
        return JSON.parse(await page.evaluate<string>(call)) as Outcome;
      },
    };
  };

  test('of an allowed origin gets, awaits, writes and follows, by JSON and a token', async () => {
    const page = await open(allowedOrigin);
    expect(await page.run('connect', url, credential)).toEqual({ result: 'ci:build-7' });
    expect(await page.run('get', 'nodes/build-7/in/x')).toEqual({ result: null });
    expect(await page.run('subscribe', 'nodes/build-7/**')).toEqual({});
    const seen = (...changes: readonly string[]): Promise<void> =>
      eventually(`the page has seen ${changes.join(', ')}`, async () => {
        const { result } = await page.run('changes');
        return JSON.stringify(result) === JSON.stringify(changes);
      });
    await seen('caught up');
    const awaited = page.run('await', 'nodes/build-7/in/x');
    await admin.resolve('nodes/build-7/in/x', 'Grüße');
    expect(await awaited).toEqual({ result: 'Grüße' });
    const written = await page.run('resolve', 'nodes/build-7/out/y', 'from the page');
    expect(written.result).toMatchObject({ generation: '1', state: 'RESOLVED' });
    await admin.delete('nodes/build-7/in/x');
    await seen(
      'caught up',
      'nodes/build-7/in/x=Grüße',
      'nodes/build-7/out/y=from the page',
      'nodes/build-7/in/x is gone',
    );
    expect((await page.run('get', 'nodes/web1/x')).error).toMatch(/^PERMISSION_DENIED: /);
  });

  test('of an allowed origin is refused with a word where its token is no good', async () => {
    const page = await open(allowedOrigin);
    expect((await page.run('connect', url, `${credential}x`)).error).toMatch(/^4501 .*token/);
  });

  test('of another origin does not get in, whatever it has', async () => {
    const page = await open('https://elsewhere.example');
    expect(await page.run('connect', url, credential)).toEqual({ error: '1006' });
    await eventually('the server says why', () =>
      Promise.resolve(cluster.log(1).includes('pages of the origin')),
    );
    expect(cluster.log(1)).not.toContain(credential);
  });
});

import { test as property, fc } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { editDistance, nearestName } from '../../src/cli/configuration/nearest-name.ts';
import { formatHostAndPort, parseHostAndPort } from '../../src/cli/configuration/scalars.ts';
import { parseServerConfiguration } from '../../src/cli/configuration/server-configuration.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { runCommand } from './support/command.ts';
import { validSettings } from './support/configuration.ts';

const file = '/etc/futurestore/server-1/server.yaml';
const parse = (settings: unknown) => parseServerConfiguration(stringify(settings), file);

/** The message with which it is refused. */
const problemOf = (text: string): string => {
  try {
    parseServerConfiguration(text, file);
  } catch (error) {
    expect(error).toBeInstanceOf(FuturestoreError);
    expect((error as FuturestoreError).code).toBe('CONFIGURATION_INVALID');
    return (error as FuturestoreError).message;
  }
  throw new Error('it was accepted');
};
const refused = (settings: unknown): string => problemOf(stringify(settings));
const changed = (change: Record<string, unknown>): string => refused({ ...validSettings(), ...change });

describe('server.yaml', () => {
  test('becomes a configuration: paths absolute, durations in ms, sizes in bytes, members sorted', () => {
    const optional = {
      election_timeout: '2s',
      heartbeat_interval: '50ms',
      log_retain: '1GiB',
      stop_grace: '0ms',
    };
    const parsed = parse({
      ...validSettings(),
      ...optional,
      log: { level: 'debug' },
      gateway: { workers: 2 },
      limits: { connections: 50 },
      agents: {
        ...validSettings().agents,
        advertise: ['wss://agents.example.com:443'],
        proxy_protocol: { trusted: ['10.0.0.0/8', '::1'] },
        connection_max_age: '24h',
      },
    });
    expect(parsed).toEqual({
      file,
      clusterId: '00112233445566778899aabbccddeeff',
      members: [
        { id: 1, name: 'server-1', peers: { host: '127.0.0.1', port: 7431 }, agents: 'wss://127.0.0.1:7421' },
        {
          id: 2,
          name: 'server-2',
          peers: { host: '10.0.0.2', port: 7432 },
          agents: 'wss://b.example.com:7422',
        },
        { id: 3, name: 'server-3', peers: { host: '::1', port: 7433 }, agents: 'wss://[::1]:7423' },
      ],
      self: {
        id: 1,
        name: 'server-1',
        peers: { host: '127.0.0.1', port: 7431 },
        agents: 'wss://127.0.0.1:7421',
      },
      dataDirectory: '/etc/futurestore/server-1/data',
      join: false,
      agents: {
        listen: { host: '127.0.0.1', port: 7421 },
        cert: '/etc/futurestore/server-1/server.pem',
        key: '/etc/server.key',
        advertise: ['wss://agents.example.com:443'],
        proxies: ['10.0.0.0/8', '::1'],
        connectionMaxAgeMs: 24 * 3600 * 1000,
        origins: [],
      },
      peers: {
        listen: { host: '0.0.0.0', port: 7431 },
        ca: '/etc/futurestore/ca/servers.pem',
        cert: '/etc/futurestore/server-1/peer.pem',
        key: '/etc/futurestore/server-1/peer.key',
      },
      adminListen: { host: '127.0.0.1', port: 0 },
      policyFile: '/etc/futurestore/policy.yaml',
      electionTimeoutMs: 2000,
      heartbeatIntervalMs: 50,
      logLevel: 'debug',
      logRetainBytes: 1024 ** 3,
      stopGraceMs: 0,
      connectionsMax: 50,
      gatewayThreads: 2,
      unauthenticatedConnectionsMax: 1000,
    });
  });

  test('has defaults for what is optional', () => {
    expect(parse(validSettings())).toMatchObject({
      electionTimeoutMs: 1000,
      heartbeatIntervalMs: 100,
      logLevel: 'info',
      logRetainBytes: 64 * 1024 ** 2,
      stopGraceMs: 5000,
      connectionsMax: 20_000,
      unauthenticatedConnectionsMax: 1000,
      agents: { advertise: [], proxies: [], connectionMaxAgeMs: 0 },
    });
  });

  test('what is no network, no address for agents, or too short an age, is refused with its place', () => {
    const agents = validSettings().agents;
    expect(changed({ agents: { ...agents, proxy_protocol: { trusted: ['::1', '10.0.0.0/33'] } } })).toContain(
      'agents.proxy_protocol.trusted[1]: must be an IP address or a network, written like 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32, got "10.0.0.0/33"',
    );
    expect(changed({ agents: { ...agents, connection_max_age: '59s' } })).toContain(
      'agents.connection_max_age: must be 0ms (never) or at least 1m',
    );
    expect(changed({ agents: { ...agents, advertise: ['agents.example.com'] } })).toContain(
      'agents.advertise[0]: must be',
    );
  });

  test('names the pages that may connect by their origins', () => {
    const origins = ['https://console.example', 'http://localhost:8080', 'https://[::1]:8443'];
    const agents = { ...validSettings().agents, origins };
    expect(parse({ ...validSettings(), agents }).agents.origins).toEqual(origins);
  });

  test('an unknown setting is refused with its place and the name that was meant', () => {
    expect(changed({ electon_timeout: '1s' })).toBe(
      `${file}: the file: unknown setting "electon_timeout" (did you mean election_timeout?)`,
    );
    expect(changed({ log: { levl: 'info' } })).toBe(
      `${file}: log: unknown setting "levl" (did you mean level?)`,
    );
    expect(changed({ admin: { listen: '127.0.0.1:1', zebra: 1 } })).toContain(
      'admin: unknown setting "zebra" (known are listen)',
    );
    const [first, ...others] = validSettings().cluster.members;
    const cluster = { id: validSettings().cluster.id, members: [{ ...first, nam: 'x' }, ...others] };
    expect(changed({ cluster })).toContain('cluster.members[0]: unknown setting "nam" (did you mean name?)');
    expect(changed({ 'election-timeout': '1s' })).toContain('did you mean election_timeout?');
    for (const name of ['__proto__', 'constructor', 'toString']) {
      expect(problemOf(`${stringify(validSettings())}"${name}": 1\n`)).toContain(`unknown setting "${name}"`);
    }
  });

  test('all problems are named at once', () => {
    const { data: _, ...rest } = validSettings();
    const message = refused({
      ...rest,
      member: '1',
      colour: 'red',
      agents: { listen: 'nowhere', cert: 'server.pem' },
      log: { level: 'loud' },
      log_retain: '64MB',
    });
    expect(message.replace(`${file}: `, '').split('; ')).toEqual([
      expect.stringMatching(/^the file: unknown setting "colour"/),
      'member: must be a whole number from 1 to 2147483648, got "1"',
      'data: is missing',
      'agents.listen: must be an address to listen on, written host:port, got "nowhere"',
      'agents.key: is missing',
      'log.level: must be one of trace, debug, info, warn, error, got "loud"',
      'log_retain: must be a size from 1MiB to 16GiB, written like 512KiB, 64MiB or 1GiB, got "64MB"',
    ]);
  });

  test('settings that contradict each other are refused', () => {
    const { cluster } = validSettings();
    const members = (change: Record<string, unknown>) => ({
      cluster: { ...cluster, members: cluster.members.map((member) => ({ ...member, ...change })) },
    });
    expect(changed({ member: 7 })).toContain('member: 7 is none of cluster.members (2, 1, 3)');
    expect(changed(members({ id: 1 }))).toContain('cluster.members: ids must differ, repeated: 1');
    expect(changed(members({ name: 'x' }))).toContain('names must differ, repeated: x');
    expect(changed(members({ peers: 'a:1' }))).toContain('addresses for peers must differ, repeated: a:1');
    expect(changed(members({ agents: 'wss://a:1' }))).toContain('addresses for agents must differ');
    expect(changed({ heartbeat_interval: '400ms' })).toContain(
      'heartbeat_interval: 400ms must be at most a third',
    );
    expect(changed({ admin: { listen: '127.0.0.1:7421' } })).toContain('must listen on different ports');
  });

  test.each([
    ['cluster', { id: '0011', members: [] }, 'cluster.id: must be 32 lower-case hex digits in quotes'],
    ['cluster', { id: 'x', members: [] }, 'cluster.members: must name at least one server'],
    ['cluster', { id: 'x', members: 'a' }, 'cluster.members: must be the list of all servers'],
    ['cluster', { members: [7] }, 'cluster.members[0]: must be a group of settings, got number'],
    ['cluster', { members: [{ name: '../x' }] }, "cluster.members[0].name: must be a server's name"],
    [
      'cluster',
      { members: [{ agents: 'ws://a:1' }] },
      'cluster.members[0].agents: must be an address for agents',
    ],
    [
      'cluster',
      { members: [{ agents: 'wss://a:1/x' }] },
      'cluster.members[0].agents: must be an address for agents',
    ],
    ['cluster', { members: [{ peers: 'a:0' }] }, 'cluster.members[0].peers: must be an address'],
    ['log', [], 'log: must be a group of settings, got a list'],
    ['cluster', null, 'cluster: must be a group of settings, got nothing'],
    ['election_timeout', '99ms', 'election_timeout: must be a duration from 100ms to 1m'],
    ['election_timeout', 1, 'election_timeout: must be a duration from 100ms to 1m, written like'],
    ['log_retain', '17GiB', 'log_retain: must be a size from 1MiB to 16GiB'],
    ['gateway', { workers: 17 }, 'gateway.workers: must be auto or a whole number from 0 to 16, got 17'],
    ['limits', { connections: 0 }, 'limits.connections: must be a whole number from 1'],
    ['member', 1.5, 'member: must be a whole number'],
    ['data', '', 'data: must be a directory, got ""'],
    ['agents', { origins: 'https://a' }, 'agents.origins: must be a list of origins'],
    ['agents', { origins: ['https://a/'] }, 'agents.origins[0]: must be the origin of a web page'],
    ['agents', { origins: ['HTTPS://a'] }, 'agents.origins[0]: must be the origin'],
    ['agents', { origins: ['https://a:443'] }, 'agents.origins[0]: must be the origin'],
    ['agents', { origins: ['*'] }, 'agents.origins[0]: must be the origin'],
    ['agents', { origins: ['null'] }, 'agents.origins[0]: must be the origin'],
    [
      'agents',
      { origins: Array.from({ length: 65 }, () => 'https://a') },
      'agents.origins: may name at most 64 origins',
    ],
  ])('%s: %j is refused', (name, value, message) => {
    expect(changed({ [name]: value })).toContain(message);
  });

  test('what is no YAML, or more than the settings need of it, is refused', () => {
    expect(problemOf('a: [')).toContain(file);
    expect(problemOf('')).toContain('the file: must be a group of settings, got nothing');
    expect(problemOf('- 1')).toContain('the file: must be a group of settings');
    expect(problemOf('member: 1\nmember: 2')).toMatch(/unique/);
    expect(problemOf('a: &a [1, 2]\nb: [*a, *a, *a]')).toMatch(/alias/i);
    expect(problemOf(`data: "${'x'.repeat(2 ** 20)}"`)).toContain('larger than 1048576 bytes');
  });

  property.prop([fc.oneof(fc.jsonValue(), fc.object({ withBigInt: false }))])(
    'any tree is refused in words',
    (tree) => {
      expect(refused(tree)).toContain(file);
    },
  );

  const paths = [
    ['member'],
    ['cluster', 'members'],
    ['agents', 'listen'],
    ['log_retain'],
    ['limits'],
    ['log', 'level'],
  ];
  property.prop([fc.constantFrom(...paths), fc.jsonValue()])(
    'any value at any place is taken or refused in words',
    (path, value) => {
      const settings: Record<string, unknown> = structuredClone(validSettings());
      let place: Record<string, unknown> = settings;
      for (const name of path.slice(0, -1)) place = (place[name] ??= {}) as Record<string, unknown>;
      place[path.at(-1) ?? ''] = value;
      try {
        parse(settings);
      } catch (error) {
        expect((error as FuturestoreError).code).toBe('CONFIGURATION_INVALID');
        expect((error as FuturestoreError).message).toContain(file);
      }
    },
  );

  test('a group that hides how to print itself is refused in words', () => {
    expect(() => parse({ ...validSettings(), member: { toString: null } })).toThrow(
      /member: .* got a group of settings/,
    );
  });

  property.prop([fc.string({ unit: 'binary', maxLength: 400 })])('any text is refused in words', (text) => {
    expect(problemOf(text)).toContain(file);
  });
});

describe('server --print-settings', () => {
  test('lists every setting with its default and meaning', async () => {
    const outcome = await runCommand(['server', '--print-settings', '--json']);
    const settings = JSON.parse(outcome.stdout) as {
      setting: string;
      required: boolean;
      default: string | null;
      meaning: string;
    }[];
    expect(settings.map(({ setting }) => setting)).toEqual([
      'cluster.id',
      'cluster.members[].id',
      'cluster.members[].name',
      'cluster.members[].peers',
      'cluster.members[].agents',
      'member',
      'data',
      'join',
      'agents.listen',
      'agents.cert',
      'agents.key',
      'agents.advertise[]',
      'agents.proxy_protocol.trusted[]',
      'agents.connection_max_age',
      'agents.origins[]',
      'peers.listen',
      'peers.ca',
      'peers.cert',
      'peers.key',
      'admin.listen',
      'policy',
      'election_timeout',
      'heartbeat_interval',
      'log.level',
      'log_retain',
      'stop_grace',
      'gateway.workers',
      'limits.connections',
      'limits.unauthenticated_connections',
    ]);
    for (const { meaning } of settings) expect(meaning).toMatch(/\.$/);
    expect(settings.find(({ setting }) => setting === 'log_retain')).toMatchObject({
      required: false,
      default: '64MiB',
    });
    expect(settings.find(({ setting }) => setting === 'join')).toMatchObject({
      required: false,
      default: 'false',
    });
    expect(settings.find(({ setting }) => setting === 'agents.origins[]')).toMatchObject({
      required: false,
      default: 'none',
    });
    const text = await runCommand(['server', '--print-settings']);
    expect(text.stdout).toContain('limits.connections  (default 20000)\n    Connections of agents at most');
    expect(text.stdout).toContain('member  (required)');
  });
});

describe('names and addresses', () => {
  test('the nearest name is found if it is near', () => {
    const known = ['listen', 'cert', 'key', 'ca'];
    expect(nearestName('lisen', known)).toBe('listen');
    expect(nearestName('LISTEN', known)).toBe('listen');
    expect(nearestName('litsen', known)).toBe('listen');
    expect(nearestName('hostname', known)).toBeUndefined();
    expect(nearestName('x'.repeat(100_000), known)).toBeUndefined();
  });

  property.prop([fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 })])(
    'the distance of texts is a distance',
    (a, b) => {
      const distance = editDistance(a, b);
      expect(editDistance(b, a)).toBe(distance);
      expect(distance === 0).toBe(a === b);
      expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
      expect(distance).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
    },
  );

  const hosts = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
  property.prop([hosts, fc.integer({ min: 0, max: 65_535 })])(
    'an address is read as it was written',
    (host, port) => {
      expect(parseHostAndPort(formatHostAndPort({ host, port }))).toEqual({ host, port });
    },
  );

  test.each([
    '',
    ':1',
    'a',
    'a:',
    'a:65536',
    'a:-1',
    'a:1x',
    '::1:5',
    '[::1]',
    'a b:1',
    'a/b:1',
    'a:1:2',
    'a:1\n',
  ])('%j is no address', (text) => {
    expect(parseHostAndPort(text)).toBeUndefined();
  });
});

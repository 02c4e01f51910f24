import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fc, test as property } from '@fast-check/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { FuturestoreError, connect, connectWithProfile, loadProfile } from '../../src/client/index.ts';

const directory = mkdtempSync(join(tmpdir(), 'futurestore-profile-'));
const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

beforeAll(() => {
  for (const name of ['ca.pem', 'cert.pem', 'key.pem']) writeFileSync(join(directory, name), pem);
});
afterAll(() => {
  rmSync(directory, { recursive: true });
});

const good = { endpoints: ['wss://127.0.0.1:7421'], ca: 'ca.pem', cert: 'cert.pem', key: 'key.pem' };

function profile(text: string): string {
  const file = join(directory, 'profile.yaml');
  writeFileSync(file, text);
  return file;
}

const problemOf = (text: string): FuturestoreError => {
  try {
    loadProfile(profile(text));
  } catch (error) {
    if (error instanceof FuturestoreError) return error;
    throw error;
  }
  throw new Error('the profile was accepted');
};

describe('a profile', () => {
  test('names the servers and the PEM files beside it', () => {
    expect(loadProfile(profile(stringify(good)))).toEqual({
      endpoints: good.endpoints,
      ca: pem,
      cert: pem,
      key: pem,
    });
  });

  test('may name a file with a token, in place of a certificate or beside it, which is not read yet', () => {
    const { cert, key, ...rest } = good;
    const tokenFile = join(directory, 'token');
    expect(loadProfile(profile(stringify({ ...rest, token_file: 'token' })))).toEqual({
      endpoints: good.endpoints,
      ca: pem,
      tokenFile,
    });
    expect(loadProfile(profile(stringify({ ...good, token_file: 'token' })))).toMatchObject({
      cert: pem,
      tokenFile,
    });
    expect(loadProfile(profile(stringify(rest)), true)).toEqual({ endpoints: good.endpoints, ca: pem });
    expect(problemOf(stringify({ ...rest, cert, token_file: 'token' })).message).toContain('key must');
    expect(problemOf(stringify({ ...rest, token_file: 1 })).message).toContain('token_file must');
    expect(key).toBe(good.key);
  });

  test.each([
    [
      'an unknown setting',
      { ...good, endpoint: [] },
      'unknown setting "endpoint": did you mean "endpoints"?',
    ],
    ['a far one', { ...good, password: 'x' }, 'unknown setting "password": known are'],
    ['no endpoints', { ...good, endpoints: [] }, 'endpoints must be a list'],
    ['a plain endpoint', { ...good, endpoints: ['ws://a:1'] }, 'endpoints[0]: "ws:" is not possible'],
    [
      'an endpoint that is none',
      { ...good, endpoints: ['nowhere'] },
      'endpoints[0]: "nowhere" is no address',
    ],
    ['a missing file', { ...good, key: 'nokey.pem' }, 'key: there is no such file'],
    ['a file that is no PEM', { ...good, ca: 'profile.yaml' }, 'ca: profile.yaml is no PEM file'],
    ['a list instead of settings', [1], 'it must hold the settings'],
  ])('with %s is refused', (_, document, text) => {
    const problem = problemOf(stringify(document));
    expect(problem.code).toBe('CONFIGURATION_INVALID');
    expect(problem.message).toContain('profile.yaml');
    expect(problem.message).toContain(text);
  });

  test('tells all its problems at once', () => {
    const { message } = problemOf(stringify({ endpoints: 1, cas: 'x' }));
    for (const text of ['"cas"', 'endpoints', 'ca must', 'cert must', 'key must'])
      expect(message).toContain(text);
  });

  test('that is missing or no YAML is refused', () => {
    expect(() => loadProfile(join(directory, 'none.yaml'))).toThrow(
      expect.objectContaining({ code: 'CONFIGURATION_INVALID' }),
    );
    expect(problemOf('a: [').code).toBe('CONFIGURATION_INVALID');
    expect(problemOf('a: 1\na: 2').code).toBe('CONFIGURATION_INVALID');
  });

  test('with PEM that is broken is refused by name when it is used', () => {
    expect(() => connectWithProfile(profile(stringify(good)))).toThrow(
      expect.objectContaining({
        code: 'CONFIGURATION_INVALID',
        message: expect.stringContaining('profile.yaml') as string,
      }),
    );
  });

  property.prop(
    [
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.object().map((value) => stringify(value)),
      ),
    ],
    { numRuns: 200 },
  )('is never more than CONFIGURATION_INVALID, whatever is in it', (text) => {
    expect(problemOf(text).code).toBe('CONFIGURATION_INVALID');
  });
});

test('connect refuses options that cannot work', () => {
  const options = { ca: pem, cert: pem, key: pem };
  for (const endpoints of [[], ['http://a'], ['wss://u:p@a'], ['wss://a/path']]) {
    expect(() => connect({ ...options, endpoints })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  }
});

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import protobuf from 'protobufjs';
import { describe, expect, test } from 'vitest';
import {
  closeCodes,
  errorDefinitions,
  failureFromMessage,
  failureToMessage,
  formatDuration,
  FuturestoreError,
  futureFromMessage,
  futureToMessage,
  isErrorCode,
  limits,
  mayReconnect,
  messages,
  operationFromMessage,
  operationToMessage,
  parseDuration,
} from '../../src/protocol/index.ts';
import { schemas } from '../../src/protocol/json-mapping.ts';
import { failure, future, operation } from './arbitraries.ts';

const root = join(import.meta.dirname, '..', '..');

function sourceFiles(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return entry.name === 'generated' ? [] : sourceFiles(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

describe('the registry of errors', () => {
  test('every code in it is used', () => {
    const files = sourceFiles(join(root, 'src')).filter(
      (path) => !path.endsWith(join('protocol', 'errors.ts')),
    );
    expect(files.length).toBeGreaterThan(20);
    const source = files.map((path) => readFileSync(path, 'utf8')).join('\n');
    expect(Object.keys(errorDefinitions).filter((code) => !new RegExp(`'${code}[':]`).test(source))).toEqual(
      [],
    );
  });

  test('every code has a meaning, and an inherited name is no code', () => {
    for (const { meaning } of Object.values(errorDefinitions)) expect(meaning).toMatch(/^[A-Z].*\.$/);
    expect(['constructor', '__proto__', 'toString', ''].some(isErrorCode)).toBe(false);
  });

  test('an error knows whether to try again', () => {
    expect(new FuturestoreError('UNAVAILABLE', 'x').retryable).toBe(true);
    expect(new FuturestoreError('NOT_FOUND', 'x').retryable).toBe(false);
  });

  test('close codes below 4500 invite to come back', () => {
    expect(mayReconnect(closeCodes.draining)).toBe(true);
    expect(mayReconnect(closeCodes.revoked)).toBe(false);
    expect(new Set(Object.values(closeCodes)).size).toBe(Object.keys(closeCodes).length);
  });
});

describe('the page for who writes a client', () => {
  const page = readFileSync(join(root, 'proto', 'README.md'), 'utf8');

  test('lists every error code, and which are retryable', () => {
    for (const [code, { retryable }] of Object.entries(errorDefinitions)) {
      expect(page).toContain(`\`${code}\``);
      const row = new RegExp(`^\\| \`${code}\`( \\*)? \\|`, 'm').exec(page);
      if (row !== null) expect(row[1] !== undefined, code).toBe(retryable);
    }
  });

  test('lists every close code of the protocol', () => {
    const listed = [...page.matchAll(/^\| (4\d{3}) \|/gm)].map(([, code]) => Number(code));
    expect(listed).toEqual(Object.values(closeCodes).sort((one, other) => one - other));
  });
});

test("the JSON mapping's table is agent.proto, field by field", () => {
  const agent = protobuf.loadSync(join(root, 'proto', 'agent.proto')).lookup('futurestore.agent');
  if (!(agent instanceof protobuf.Namespace))
    throw new Error('agent.proto has no namespace futurestore.agent');
  const fromProto: Record<string, unknown> = {};
  for (const type of agent.nestedArray) {
    if (!(type instanceof protobuf.Type)) continue;
    const oneofs = type.oneofsArray.filter(({ name }) => !name.startsWith('_'));
    expect(oneofs.length).toBeLessThan(2);
    const fields = type.fieldsArray.map((field) => {
      const oneof = oneofs.some(({ oneof: names }) => names.includes(field.name));
      const message = agent.get(field.type) instanceof protobuf.Type;
      const explicit = message || field.partOf !== null;
      return [
        field.name,
        {
          type: field.type,
          presence: field.repeated ? 'repeated' : explicit ? 'explicit' : 'implicit',
          oneof,
        },
      ];
    });
    fromProto[type.name] = Object.fromEntries(fields);
  }
  expect(schemas).toEqual(fromProto);
});

describe('what the log embeds', () => {
  test('operations, futures and failures go through a message and back unchanged, with values copied', () => {
    fc.assert(
      fc.property(operation, future, failure, (one, state, fault) => {
        const { agent } = messages;
        const operationBytes = agent.Operation.encode(operationToMessage(one)).finish();
        const futureBytes = agent.Future.encode(futureToMessage(state)).finish();
        const backOperation = operationFromMessage(agent.Operation.decode(operationBytes));
        const backFuture = futureFromMessage(agent.Future.decode(futureBytes));
        operationBytes.fill(0);
        futureBytes.fill(0);
        expect(backOperation).toStrictEqual(one);
        expect(backFuture).toStrictEqual(state);
        expect(failureFromMessage(failureToMessage(fault))).toStrictEqual(fault);
      }),
    );
  });

  test('a number that no plain reader gives exactly is refused', () => {
    expect(() =>
      futureFromMessage({ key: 'a', state: messages.agent.FutureState.PENDING, generation: 2 ** 53 }),
    ).toThrow(/generation/);
    expect(() => operationFromMessage({ key: 'a', touch: { ttlMs: 2 ** 60 } })).toThrow(/touch\.ttl_ms/);
    expect(() => failureFromMessage({ code: 'NO_SUCH_CODE' })).toThrow(/registry/);
  });
});

describe('durations', () => {
  test.each([
    ['500ms', 500],
    ['30s', 30_000],
    ['5m', 300_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
    ['0s', 0],
    ['', undefined],
    ['5', undefined],
    ['-5s', undefined],
    ['1.5h', undefined],
    ['5 minutes', undefined],
    ['9999999d', undefined],
  ])('%j is %s ms', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  test('what is formatted is read back', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: limits.durationMsMax }), (milliseconds) => {
        expect(parseDuration(formatDuration(milliseconds))).toBe(milliseconds);
      }),
    );
    expect(formatDuration(90_000)).toBe('90s');
  });
});

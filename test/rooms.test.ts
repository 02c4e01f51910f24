import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const source = join(dirname(fileURLToPath(import.meta.url)), '..', 'src');

/** Who may import whom. A room that is not listed may import nothing of ours. */
const mayImport: Record<string, readonly string[]> = {
  scopes: [],
  raft: [],
  protocol: ['scopes'],
  store: ['protocol', 'scopes'],
  feed: ['protocol', 'scopes'],
  storage: ['protocol', 'raft'],
  peers: ['protocol', 'raft', 'storage'],
  server: ['feed', 'peers', 'protocol', 'raft', 'scopes', 'storage', 'store'],
  gateway: ['protocol', 'scopes', 'server'],
  admin: ['protocol', 'server'],
  client: ['protocol'],
  relay: ['client', 'protocol'],
  simulation: ['client', 'gateway', 'peers', 'protocol', 'raft', 'scopes', 'server', 'storage', 'store'],
  cli: [
    'admin',
    'client',
    'gateway',
    'peers',
    'protocol',
    'raft',
    'relay',
    'scopes',
    'server',
    'storage',
    'store',
  ],
};

/** Which packages and parts of Node a pure room may use. */
const pureRooms: Record<string, readonly string[]> = {
  raft: [],
  scopes: [],
  store: ['node:assert/strict', 'node:crypto', 'protobufjs/minimal.js'],
  feed: ['node:assert/strict'],
};

/** What would let time, chance or I/O into a pure room. */
const impure: readonly (readonly [string, RegExp])[] = [
  ['await', /\bawait\b(?!'|\()/],
  ['async', /\basync\b/],
  ['a promise', /\bnew Promise\b|\bPromise\./],
  ['a clock', /\bDate\b|\bperformance\b/],
  ['randomness', /\bMath\.random\b|\brandomBytes\b|\brandomUUID\b|\bgetRandomValues\b/],
  ['a timer', /\bset(Timeout|Interval|Immediate)\b|\bqueueMicrotask\b|\bnextTick\b/],
  ['the process', /\bprocess\./],
  ['a console', /\bconsole\./],
];

const filesBelow = (directory: string): string[] =>
  readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) return name === 'generated' ? [] : filesBelow(path);
    return path.endsWith('.ts') ? [path] : [];
  });

interface SourceFile {
  readonly path: string;
  readonly room: string;
  readonly text: string;
  readonly code: string;
  readonly imports: readonly string[];
}

/** The text without comments, and without the contents of strings where they could look like code. */
const codeOf = (text: string): string =>
  text
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/(^|[^:'"`\\])\/\/.*$/gm, '$1')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, "''")
    .replace(/`(?:[^`\\$]|\\.|\$(?!\{))*`/g, '``');

const files: readonly SourceFile[] = filesBelow(source).map((file) => {
  const path = relative(source, file).split(sep).join('/');
  const text = readFileSync(file, 'utf8');
  const imports = [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '');
  return { path, room: path.split('/')[0] ?? '', text, code: codeOf(text), imports };
});

const importsOfRooms = files.flatMap((file) =>
  file.imports
    .filter((target) => target.startsWith('.'))
    .map((target) => ({
      file,
      target: normalize(join(dirname(file.path), target))
        .split(sep)
        .join('/'),
    })),
);

describe('the rooms', () => {
  test('are all seen by these tests', () => {
    expect(files.length).toBeGreaterThan(80);
    expect(importsOfRooms.length).toBeGreaterThan(200);
    expect([...new Set(files.map((file) => file.room))].sort()).toEqual(Object.keys(mayImport).sort());
  });

  test('import only the rooms that they may know', () => {
    const wrong = importsOfRooms
      .map(({ file, target }) => ({ from: file.path, room: file.room, to: target.split('/')[0] ?? '' }))
      .filter(({ room, to }) => to !== room && !(mayImport[room] ?? []).includes(to))
      .map(({ from, to }) => `${from} imports ${to}`);
    expect(wrong).toEqual([]);
  });

  test('are entered by their doors', () => {
    const wrong = importsOfRooms
      .filter(({ file, target }) => target.split('/')[0] !== file.room && !/^[^/]+\/index\.ts$/.test(target))
      .map(({ file, target }) => `${file.path} imports ${target} past the door`);
    expect(wrong).toEqual([]);
  });

  test('have a door with a head comment', () => {
    const doors = files.filter((file) => /^[^/]+\/index\.ts$/.test(file.path));
    expect(doors.map((file) => file.room).sort()).toEqual(Object.keys(mayImport).sort());
    expect(doors.filter((file) => !file.text.startsWith('/**')).map((file) => file.path)).toEqual([]);
  });

  test.each(Object.entries(pureRooms))(
    '%s is pure: no clock, chance, timer, I/O or await',
    (room, allowed) => {
      const own = files.filter((file) => file.room === room);
      expect(own.length).toBeGreaterThan(3);
      const wrong = own.flatMap((file) => [
        ...impure
          .filter(([, pattern]) => pattern.test(file.code))
          .map(([what]) => `${file.path} uses ${what}`),
        ...file.imports
          .filter((target) => !target.startsWith('.') && !allowed.includes(target))
          .map((target) => `${file.path} imports ${target}`),
      ]);
      expect(wrong).toEqual([]);
    },
  );

  test('the rules see what they forbid', () => {
    const seen = (code: string): string[] =>
      impure.filter(([, pattern]) => pattern.test(codeOf(code))).map(([what]) => what);
    expect(seen('const x = await y;')).toEqual(['await']);
    expect(seen('setTimeout(f, Date.now());')).toEqual(['a clock', 'a timer']);
    expect(seen('return new Promise(() => Math.random());')).toEqual(['a promise', 'randomness']);
    expect(seen("// await\nconst kind = 'await';")).toEqual([]);
  });
});

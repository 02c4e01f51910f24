import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { mutations } from '../../../src/simulation/mutations/list.ts';

const source = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'src');

describe('the mutations', () => {
  test('are at least as many as are promised, each with a name of its own', () => {
    expect(mutations.length).toBeGreaterThanOrEqual(70);
    expect(new Set(mutations.map(({ name }) => name)).size).toBe(mutations.length);
    expect(mutations.filter(({ quick }) => quick === true).length).toBeGreaterThanOrEqual(10);
  });

  test('break rules in every room that the simulation runs', () => {
    const rooms = new Set(mutations.map(({ file }) => file.split('/')[0]));
    const run = ['client', 'feed', 'gateway', 'peers', 'raft', 'server', 'storage', 'store'];
    expect(rooms).toEqual(new Set(run));
  });

  test.each(mutations.map((mutation) => [mutation.name, mutation] as const))(
    '%s changes one place of the present code',
    (_name, { file, find, replace }) => {
      const text = readFileSync(join(source, file), 'utf8');
      expect(text.split(find).length - 1).toBe(1);
      expect(replace).not.toBe(find);
    },
  );
});

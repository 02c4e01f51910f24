import { defineConfig } from 'vitest/config';

const processes = { testTimeout: 120_000, hookTimeout: 60_000 };

// Three projects, one after the other: what is measured against the clock must not share the machine with anything else,
// and clusters of real processes, which mostly wait, with few others.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'rooms',
          include: ['test/**/*.test.ts'],
          exclude: ['test/processes/**', 'test/measured/**'],
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...processes,
          name: 'processes',
          include: ['test/processes/**/*.test.ts'],
          maxWorkers: 3,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          ...processes,
          name: 'measured',
          include: ['test/measured/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});

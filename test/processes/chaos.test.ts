import { describe, expect, test } from 'vitest';
import { faultHead, faultLine, runChaos } from '../chaos/run.ts';

describe('under the load of six clients nothing that was promised is broken', () => {
  // `npm run chaos` takes longer runs, five servers, and whatever seed.
  test('while processes are killed and stopped, disks full, files damaged, networks cut', async () => {
    const report = await runChaos({
      servers: 3,
      seconds: 20,
      faultsMin: 6,
      seed: 7,
      faults: [],
    });
    console.log([...report.skipped, faultHead, ...report.faults.map(faultLine)].join('\n'));
    expect(report.violations, `the servers' files are in ${report.directory ?? 'no place'}`).toEqual([]);
    expect(report.faults.length).toBeGreaterThanOrEqual(6);
    expect(report.load.acknowledged.length).toBeGreaterThan(200);
    expect(report.load.history.length).toBeGreaterThan(500);
    expect(report.load.awaitsEnded).toBeGreaterThan(50);
  });
});

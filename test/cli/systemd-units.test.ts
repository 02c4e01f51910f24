import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import * as v from 'valibot';
import { afterAll, describe, expect, test } from 'vitest';
import { exitCodes } from '../../src/cli/exit-codes.ts';
import { serverSettings } from '../../src/cli/configuration/settings.ts';
import { serverMemory } from '../../src/cli/server-memory.ts';
import { gatewayLimits } from '../../src/gateway/index.ts';

const version = spawnSync('systemd-analyze', ['--version'], { encoding: 'utf8' }).stdout?.split('\n', 1)[0];

if (version === undefined)
  console.warn('SKIPPED: there is no systemd-analyze on this machine (Debian: systemd)');

const directory = mkdtempSync(join(tmpdir(), 'futurestore-units-'));
afterAll(() => rmSync(directory, { recursive: true }));

const unitOf = (name: string): string => readFileSync(`systemd/futurestore-${name}.service`, 'utf8');

/** All that is given for the setting. */
const given = (unit: string, setting: string): string[] =>
  [...unit.matchAll(new RegExp(`^${setting}=(.*)$`, 'gm'))].flatMap(([, value = '']) => value.split(' '));

describe.each(['server', 'relay'])('the unit of the %s', (name) => {
  test.skipIf(version === undefined)('is one that systemd understands, and has few rights', () => {
    const file = join(directory, `futurestore-${name}.service`);
    const command = '/usr/local/bin/futurestore';
    expect(unitOf(name)).toContain(`ExecStart=${command} ${name} `);
    // The command need not be installed here.
    writeFileSync(file, unitOf(name).replace(command, process.execPath));
    const verified = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8' });
    expect(verified).toMatchObject({ status: 0, stdout: '', stderr: '' });
    // 2.5 of 10, where 10 is a process without a sandbox.
    const judged = spawnSync('systemd-analyze', ['security', '--offline=true', '--threshold=25', file]);
    expect(judged.status).toBe(0);
  });
});

describe('the unit of the server', () => {
  const unit = unitOf('server');

  test('starts it again unless it was stopped or removed, or what is wrong stays wrong', () => {
    expect(given(unit, 'Restart')).toEqual(['on-failure']);
    expect(given(unit, 'RestartPreventExitStatus').map(Number)).toEqual([
      exitCodes.usage,
      exitCodes.unusableData,
    ]);
    expect(readFileSync('README.md', 'utf8')).toMatch(
      /^\| 9 \| .* A supervisor should not start the server again \|$/m,
    );
  });

  test("gives it what its agents' memory, a stop in order and its connections need", () => {
    const variables = Object.entries(serverMemory).map(([name, value]) => `${name}=${value}`);
    expect(given(unit, 'Environment')).toEqual(variables);
    expect(given(unit, 'ExecReload')).toEqual(['/bin/kill', '-HUP', '$MAINPID']);
    expect(v.getDefault(serverSettings.entries.stop_grace)).toBe('5s');
    expect(Number(given(unit, 'TimeoutStopSec')[0])).toBeGreaterThan(5 * 2);
    expect(Number(given(unit, 'LimitNOFILE')[0])).toBeGreaterThan(2 * gatewayLimits.connectionsMax);
  });
});

import { afterEach, describe, expect, test } from 'vitest';
import { Elsewhere } from '../../src/gateway/elsewhere.ts';
import { startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

describe('agents are sent elsewhere', () => {
  /** The seconds of a time without a leader in which they are. */
  const roundsWithin = (seconds: number): number[] => {
    const elsewhere = new Elsewhere(5000);
    const rounds: number[] = [];
    for (let second = 1; second <= seconds; second += 1)
      if (elsewhere.isDue(second * 1000)) rounds.push(second);
    return rounds;
  };

  test('when no leader was known for long, then ever more rarely, at last once a minute', () => {
    expect(roundsWithin(4)).toEqual([]);
    expect(roundsWithin(300)).toEqual([5, 10, 20, 40, 80, 140, 200, 260]);
  });

  test('as early again after a leader was there, however short', () => {
    const elsewhere = new Elsewhere(5000);
    expect([5000, 6000, 10_000].map((ms) => elsewhere.isDue(ms))).toEqual([true, false, true]);
    expect([0, 4000, 5000].map((ms) => elsewhere.isDue(ms))).toEqual([false, false, true]);
    expect([1000, 5000].map((ms) => elsewhere.isDue(ms))).toEqual([false, true]);
  });

  test('once after a standstill in which several rounds have passed', () => {
    const elsewhere = new Elsewhere(5000);
    expect([100_000, 101_000, 139_000, 140_000].map((ms) => elsewhere.isDue(ms))).toEqual([
      true,
      false,
      false,
      true,
    ]);
  });

  test('over the longer the more they are: their handshakes take the time of the others', () => {
    const elsewhere = new Elsewhere(5000);
    expect(elsewhere.graceMs(1)).toBeLessThan(6000);
    expect(elsewhere.graceMs(20_000)).toBeGreaterThan(2 * 20_000 * 2.7);
  });
});

describe('a gateway whose server knows no leader', () => {
  let rig: Rig;
  afterEach(() => rig.close());

  const goaways = ({ frames }: TestAgent): unknown[] => frames.filter(({ goaway }) => goaway !== undefined);

  test('asks those who are there to go, once, and those who come later in the next round; it closes nobody', async () => {
    rig = await startGateway();
    const early = await rig.greeted();
    rig.port.withoutLeader(3000);
    rig.clock.advance(1000);
    expect(rig.log.lines.filter(({ message }) => message === 'sending agents elsewhere')).toEqual([]);
    rig.clock.advance(1000);
    await early.until((frames) => frames.some(({ goaway }) => goaway !== undefined));
    expect(early.frames.at(-1)?.goaway).toEqual({
      graceMs: 5010,
      reason: 'the server has known no leader for 5 s: connect to another one',
    });
    const late = await rig.greeted();
    rig.clock.advance(5000);
    await late.until((frames) => frames.some(({ goaway }) => goaway !== undefined));
    expect([goaways(early).length, goaways(late).length]).toEqual([1, 1]);
    const told = rig.log.lines.filter(({ message }) => message === 'sending agents elsewhere');
    expect(told.map(({ fields }) => fields)).toMatchObject([{ agents: 1 }, { agents: 1 }]);
    expect(rig.gateway.connections).toBe(2);
  });

  test('leaves them alone once it knows one again', async () => {
    rig = await startGateway();
    await rig.greeted();
    rig.port.withoutLeader(4000);
    rig.port.withoutLeader(0);
    rig.clock.advance(60_000);
    expect(rig.log.lines.filter(({ message }) => message === 'sending agents elsewhere')).toEqual([]);
  });
});

import { afterEach, describe, expect, test } from 'vitest';
import { Farewells } from '../../src/gateway/farewells.ts';
import type { AgentConnection } from '../../src/gateway/connection.ts';
import { startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

const hourMs = 3_600_000;

/** When each of so many, all accepted at once, was asked to go, in seconds. */
const askedAt = (count: number, connectionMaxAgeMs: number): number[] => {
  const farewells = new Farewells({ connectionMaxAgeMs, farewellGraceMs: 30_000 });
  const asked: number[] = [];
  let second = 0;
  for (let id = 1; id <= count; id += 1) {
    const connection = { id, acceptedAtMs: 0, goaway: () => asked.push(second), close: () => undefined };
    farewells.add(connection as unknown as AgentConnection);
  }
  for (; second <= (2 * connectionMaxAgeMs) / 1000; second += 1) farewells.tick(second * 1000, true);
  return asked;
};

describe('connections of an age', () => {
  test('are asked to go, each once, within a fifth of the age before or after it', () => {
    const asked = askedAt(1000, hourMs);
    expect(asked).toHaveLength(1000);
    expect(Math.min(...asked)).toBeGreaterThanOrEqual(0.8 * 3600);
    expect(Math.max(...asked)).toBeLessThanOrEqual(1.2 * 3600 + 1);
  });

  test('nobody is asked where no age is set', () => {
    expect(askedAt(10, 0)).toEqual([]);
  });

  test('pitfall 54: those who came at once do not go at once', () => {
    const asked = askedAt(1440, hourMs);
    for (let begin = 0; begin < 7200; begin += 10) {
      const together = asked.filter((second) => second >= begin && second < begin + 10);
      expect(together.length).toBeLessThanOrEqual(16);
    }
  });

  test('closes in a drain who was asked before, when its grace is over', () => {
    const farewells = new Farewells({ connectionMaxAgeMs: 60_000, farewellGraceMs: 20_000 });
    const closedAt: number[] = [];
    const askedAt: number[] = [];
    let second = 0;
    const connection = {
      id: 1,
      acceptedAtMs: 0,
      goaway: () => askedAt.push(second),
      close: () => {
        closedAt.push(second);
        farewells.remove(connection as unknown as AgentConnection);
      },
    };
    farewells.add(connection as unknown as AgentConnection);
    for (; second < 200; second += 1) farewells.tick(second * 1000, askedAt.length === 0);
    expect(closedAt).toEqual(askedAt.map((at) => at + 21));
  });
});

describe('a gateway with an age for its connections', () => {
  let rig: Rig;
  afterEach(() => rig.close());

  const goaway = (agent: TestAgent): Promise<unknown> =>
    agent.until((frames) => frames.some((frame) => frame.goaway !== undefined));

  test('lets an agent go on until it has another connection, and closes it where it does not go', async () => {
    rig = await startGateway({ connectionMaxAgeMs: 60_000, farewellGraceMs: 20_000, silenceMs: 10 * hourMs });
    const agent = await rig.greeted();
    rig.clock.advance(47_000);
    expect(agent.frames).toHaveLength(1);
    rig.clock.advance(27_000);
    await goaway(agent);
    expect(agent.frames.at(-1)?.goaway).toEqual({
      graceMs: 20_000,
      reason: 'the connection has lasted as long as it may: connect again',
    });
    const young = await rig.greeted();
    expect(rig.gateway.connections).toBe(2);
    rig.clock.advance(23_000);
    expect(await agent.closed).toMatchObject({ code: 4090 });
    expect(young.frames).toHaveLength(1);
    expect(rig.gateway.connections).toBe(1);
  });

  test('may come back to it, and is told so where its level knows that', async () => {
    rig = await startGateway({ connectionMaxAgeMs: 60_000, silenceMs: 10 * hourMs });
    const agents = await Promise.all(
      [2, 3].map((level) => rig.greeted({ offers: [`futurestore.v1.level.${level}`] })),
    );
    rig.clock.advance(74_000);
    await Promise.all(agents.map(goaway));
    expect(agents.map((agent) => agent.frames.at(-1)?.goaway?.here)).toEqual([undefined, true]);
  });

  test('asks nobody while it drains, and later those who are still here, at most two seconds of them at once', async () => {
    rig = await startGateway({
      connectionMaxAgeMs: 60_000,
      farewellGraceMs: 20_000,
      silenceMs: 10 * hourMs,
    });
    const agents = await Promise.all(Array.from({ length: 20 }, () => rig.greeted()));
    const drained = rig.gateway.drain(hourMs);
    await Promise.all(agents.map(goaway));
    rig.clock.advance(100_000);
    await rig.gateway.admit();
    await drained;
    const left = rig.gateway.connections;
    const told = (): number =>
      agents.flatMap(({ frames }) => frames.filter(({ goaway: one }) => one !== undefined)).length;
    // The answer comes behind all that was said before.
    const said = async (): Promise<number> => {
      await rig.greeted();
      return told();
    };
    expect(await said()).toBe(agents.length);
    rig.clock.advance(26_000);
    const some = (await said()) - agents.length;
    expect(some).toBeGreaterThan(0);
    expect(some).toBeLessThan(left / 2);
    rig.clock.advance(60_000);
    await Promise.all(agents.map((agent) => agent.closed));
    expect(told()).toBe(agents.length + left);
  });

  test('asks nobody where none is set', async () => {
    rig = await startGateway({ silenceMs: 10 * hourMs });
    const agent = await rig.greeted();
    rig.clock.advance(600_000);
    await rig.greeted();
    expect(agent.frames.filter((frame) => frame.goaway !== undefined)).toEqual([]);
    expect(rig.gateway.connections).toBe(2);
  });
});

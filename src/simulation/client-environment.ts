/** What a real client takes from outside, made of virtual time, seeded chance and simulated sockets. */
import type { ClientEnvironment } from '../client/index.ts';
import type { FrameCodec } from '../protocol/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import type { Life } from './clock.ts';
import type { Random } from './random.ts';

/** `agent`: its number on the network. */
export const clientEnvironment = (
  network: AgentNetwork,
  agent: number,
  life: Life,
  random: Random,
  codec: FrameCodec,
): ClientEnvironment => {
  const { time } = network;
  return {
    codec,
    openSocket: (endpoint, handlers) =>
      network.openSocket({ agent, client: life, codec }, endpoint, handlers),
    now: () => 1_600_000_000_000 + time.nowMs,
    setTimer: (delayMs, callback) => time.after(delayMs, life, 'timer', callback),
    clearTimer: (handle) => {
      (handle as { cancelled: boolean }).cancelled = true;
    },
    defer: (callback) => {
      time.after(0, life, 'input', callback);
    },
    random: random.next,
    randomBytes: (count) => random.bytes(count),
  };
};

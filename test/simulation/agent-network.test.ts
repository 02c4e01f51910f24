import { describe, expect, test } from 'vitest';
import type { AgentWebSocket } from '../../src/gateway/index.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import { AgentNetwork, type SentFrame } from '../../src/simulation/agent-network.ts';
import { Life, VirtualTime } from '../../src/simulation/clock.ts';
import { Random } from '../../src/simulation/random.ts';
import { Counts } from '../../src/simulation/statistics.ts';
import { Trace } from '../../src/simulation/trace.ts';

const frameBytes = 1000;
const frames = 10;
const options = { binary: true, compress: false } as const;

interface Connection {
  readonly time: VirtualTime;
  readonly client: Life;
  readonly server: Life;
  readonly socket: AgentWebSocket;
  /** The first byte of each frame that the client was given, and how its socket ended. */
  readonly got: (number | string)[];
  /** The first byte of each frame that the checks were shown. */
  readonly judged: number[];
  /** ... of each that left later. */
  readonly left: number[];
}

/** A client that stands still, to whom ten frames have been sent. */
const slowReader = async (): Promise<Connection> => {
  const time = new VirtualTime();
  const judged: number[] = [];
  const left: number[] = [];
  const got: (number | string)[] = [];
  const network = new AgentNetwork({
    time,
    random: new Random(1, 'agent network'),
    trace: new Trace(() => time.nowMs),
    counts: new Counts(),
    conditions: { latencyMs: 1, jitterMs: 0 },
    onSent: ({ bytes }: SentFrame) => judged.push(bytes[0] ?? -1),
    onLeaving: ({ bytes }) => left.push(bytes[0] ?? -1),
  });
  const server = new Life('server 1');
  const client = new Life('agent 1');
  const sockets: AgentWebSocket[] = [];
  const arrived = ({ ws }: { readonly ws: AgentWebSocket }): void => void sockets.push(ws);
  const door = network.doorOf(1, server)({} as never, arrived, () => undefined);
  await door.listen();
  network.openSocket({ agent: 1, client, codec: protobufCodec }, AgentNetwork.endpointOf(1), {
    onOpen: () => undefined,
    onMessage: (bytes) => got.push(Number(bytes[0])),
    onActivity: () => undefined,
    onDrain: () => undefined,
    onClose: (code) => got.push(`closed with ${code}`),
  });
  while (time.runNext(100));
  const [socket] = sockets;
  if (socket === undefined) throw new Error('nobody was connected');
  time.stop(client);
  for (let frame = 0; frame < frames; frame += 1) socket.send(Buffer.alloc(frameBytes, frame), options);
  while (time.runNext(1000));
  return { time, client, server, socket, got, judged, left };
};

const goOn = ({ time, client }: Connection): void => {
  time.resume(client, true);
  while (time.runNext(20_000));
};

describe('what a client does not read', () => {
  test('is a little on its way to it, and else waits in the server', async () => {
    const connection = await slowReader();
    expect(connection.socket.bufferedAmount).toBe(6 * frameBytes);
    goOn(connection);
    expect(connection.got).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(connection.socket.bufferedAmount).toBe(0);
  });

  test('is gone when the server cuts the connection, but for what was on its way', async () => {
    const connection = await slowReader();
    connection.socket.terminate();
    goOn(connection);
    expect(connection.got).toEqual([0, 1, 2, 3, 'closed with 1006']);
  });

  test('arrives before the end when the server closes the connection in good order', async () => {
    const connection = await slowReader();
    connection.socket.close(4003, 'the end');
    goOn(connection);
    expect(connection.got).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 'closed with 4003']);
  });

  test('does not leave a server that stands still', async () => {
    const connection = await slowReader();
    connection.time.stop(connection.server);
    goOn(connection);
    expect(connection.got).toEqual([0, 1, 2, 3]);
  });

  test('is judged when it is sent, and again when it leaves', async () => {
    const connection = await slowReader();
    expect(connection.judged).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(connection.left).toEqual([]);
    goOn(connection);
    expect(connection.judged).toHaveLength(frames);
    expect(connection.left).toEqual([4, 5, 6, 7, 8, 9]);
  });

  test('is judged when it leaves a connection that was closed in good order, too', async () => {
    const connection = await slowReader();
    connection.socket.close(4003, 'the end');
    goOn(connection);
    expect(connection.left).toEqual([4, 5, 6, 7, 8, 9]);
  });

  test('is gone when the server cuts a connection that it had closed in good order', async () => {
    const connection = await slowReader();
    connection.socket.close(4003, 'the end');
    connection.socket.terminate();
    goOn(connection);
    expect(connection.got).toEqual([0, 1, 2, 3, 'closed with 1006']);
    expect(connection.left).toEqual([]);
  });
});

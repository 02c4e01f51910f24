/** The other side of a link, frame by frame: a dialer or a listener that does as the test says. */
import { connect, createServer } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import type { Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { FrameAssembler, frameBytesMax } from '../../src/peers/framing.ts';
import { decodeFrame, encodeFrame, peerProtocolVersion } from '../../src/peers/peer-codec.ts';
import type { PeerFrame, PeerHello } from '../../src/peers/peer-codec.ts';
import { certificateOf, nameOf, one, peersCa, two } from './cluster.ts';

/** A client of the peer port with this certificate, or another one. */
export const rawClient = async (
  port: number,
  name: string,
  certificate?: { readonly cert: string; readonly key: string },
): Promise<TLSSocket> => {
  const socket = connect({
    host: '127.0.0.1',
    port,
    ca: (await peersCa()).cert,
    ...(certificate ?? (await certificateOf(name))),
    checkServerIdentity: () => undefined,
  });
  onTestFinished(() => void socket.destroy());
  socket.on('error', () => undefined);
  return socket;
};

export const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => void socket.once('close', () => resolve()));

/** Of member 2 to member 1. */
export const hello = (changes: Partial<PeerHello> = {}): PeerFrame => {
  const version = changes.version ?? peerProtocolVersion;
  return {
    kind: 'hello',
    hello: {
      clusterId: 'test',
      from: two,
      to: one,
      run: 1,
      diskId: new Uint8Array(16),
      version,
      bulk: false,
      ...(version < 2 ? {} : { standing: { term: 1, lastIndex: 2 }, address: '127.0.0.1:9' }),
      ...(version < 3 ? {} : { lineage: { since: 1, runs: [] } }),
      ...changes,
    },
  };
};

/** Calls back with the bytes of each frame, without their length. */
const onFrame = (socket: TLSSocket, heard: (bytes: Buffer) => void): void => {
  const assembler = new FrameAssembler(frameBytesMax);
  socket.on('data', (chunk: Buffer) => {
    assembler.push(chunk);
    for (let bytes = assembler.next(); bytes !== undefined; bytes = assembler.next()) heard(bytes);
  });
};

/** Everything it said until it hung up. */
export const framesUntilClosed = async (socket: TLSSocket): Promise<PeerFrame[]> => {
  const frames: PeerFrame[] = [];
  onFrame(socket, (bytes) => frames.push(decodeFrame(bytes)));
  await closed(socket);
  return frames;
};

/** Dials, says these frames, and gives what it is told until the other side hangs up. */
export const answersTo = async (port: number, name: string, ...frames: PeerFrame[]): Promise<PeerFrame[]> => {
  const socket = await rawClient(port, name);
  socket.on('secureConnect', () => socket.write(Buffer.concat(frames.map(encodeFrame))));
  return framesUntilClosed(socket);
};

/** A peer that was let in, and its answer to the hello. */
export const letIn = async (port: number, name: string, frame: PeerFrame): Promise<TLSSocket> => {
  const socket = await rawClient(port, name);
  socket.on('secureConnect', () => socket.write(encodeFrame(frame)));
  await new Promise<void>((resolve, reject) => {
    socket.once('close', () => reject(new Error('it was not let in')));
    onFrame(socket, (bytes) => {
      const answer = decodeFrame(bytes);
      if (answer.kind === 'empty') resolve();
      else reject(new Error(JSON.stringify(answer)));
    });
  });
  return socket;
};

export class RawListener {
  readonly #server;
  readonly #sockets = new Set<TLSSocket>();
  readonly port: number;

  private constructor(server: ReturnType<typeof createServer>, port: number) {
    this.#server = server;
    this.port = port;
    server.on('secureConnection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    onTestFinished(() => this.close());
  }

  /** As member `id`. `heard` gets each frame, and which connection it came on. */
  static async start(
    id: number,
    heard: (frame: PeerFrame, socket: TLSSocket, bytes: Buffer) => void,
    applicationProtocols: readonly string[] = [],
  ): Promise<RawListener> {
    const negotiates = applicationProtocols.length > 0 ? { ALPNProtocols: [...applicationProtocols] } : {};
    const server = createServer({
      ca: (await peersCa()).cert,
      ...(await certificateOf(nameOf(id))),
      requestCert: true,
      ...negotiates,
    });
    server.on('secureConnection', (socket) => {
      socket.on('error', () => undefined);
      onFrame(socket, (bytes) => {
        if (!socket.destroyed) heard(decodeFrame(bytes), socket, bytes);
      });
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    return new RawListener(server, typeof address === 'object' && address !== null ? address.port : 0);
  }

  /** Ends the links there are; it goes on listening. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.#server.close();
    this.hangUp();
  }
}

/** What a listener of version 1 answers to a hello, as its code was. True: it has let the dialer in. */
export const answerAsVersion1 = (frame: PeerFrame, socket: TLSSocket): boolean => {
  if (frame.kind !== 'hello') return false;
  if (frame.hello.version !== 1) {
    // A hello of version 2 has fields that it did not know.
    socket.destroy();
    return false;
  }
  socket.write(encodeFrame({ kind: 'empty' }));
  return true;
};

import type { TLSSocket } from 'node:tls';
import { FuturestoreError } from '../protocol/index.ts';
import type { Term } from '../raft/index.ts';
import { dial } from './dialing.ts';
import { FrameAssembler, helloBytesMax } from './framing.ts';
import type { PeerTimes, LinkOptions } from './options.ts';
import { decodeFrame, encodeFrame } from './peer-codec.ts';
import type { PeerAddress, SnapshotSource } from './types.ts';

const failure = (peer: PeerAddress, reason: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'UNAVAILABLE',
    `The snapshot for ${peer.name} (member ${peer.id}) was not delivered: ${reason}.`,
    {
      cause,
    },
  );

/** One snapshot on a link of its own. At most a part and the socket's buffer are held at any time. */
export class SnapshotSender {
  readonly peer: PeerAddress;
  readonly #source: SnapshotSource;
  readonly #term: Term;
  readonly #socket: TLSSocket;
  #stall: NodeJS.Timeout;
  #accepted = false;
  #sentAll = false;
  #taken = false;
  #failure: FuturestoreError | undefined;
  /** Waits for the next thing to happen on the socket. */
  #wake: (() => void) | undefined;

  /** `version`: of the protocol, as agreed on the peer's link. */
  constructor(
    options: LinkOptions,
    times: PeerTimes,
    peer: PeerAddress,
    version: number,
    term: Term,
    source: SnapshotSource,
  ) {
    this.peer = peer;
    this.#source = source;
    this.#term = term;
    this.#socket = dial(options, peer, true, version);
    this.#stall = this.#stallAfter(times.helloMax);
    const frames = new FrameAssembler(helloBytesMax);
    this.#socket.on('data', (chunk: Buffer) => {
      try {
        frames.push(chunk);
        for (let frame = frames.next(); frame !== undefined; frame = frames.next())
          this.#received(frame, times);
      } catch (error) {
        this.fail(error instanceof Error ? error.message : String(error), error);
      }
    });
    this.#socket.on('drain', () => this.#moved());
    this.#socket.on('error', (error) => this.fail(error.message, error));
    this.#socket.on('close', () => this.fail('the link was closed'));
  }

  /** Resolves when the receiver has taken all of it. */
  async run(): Promise<void> {
    try {
      await this.#until(() => this.#accepted);
      while (!this.#sentAll) {
        const part = await this.#source.next();
        if (this.#failure !== undefined) throw this.#failure;
        if (part === undefined) throw failure(this.peer, 'it ended without a last part');
        this.#sentAll = part.last;
        this.#socket.write(
          encodeFrame({ kind: 'chunk', stream: { term: this.#term, point: this.#source.point, part } }),
        );
        await this.#until(() => !this.#socket.writableNeedDrain);
      }
      await this.#until(() => this.#taken);
    } finally {
      clearTimeout(this.#stall);
      this.#socket.destroy();
    }
  }

  /** Ends the attempt, unless it has succeeded. */
  fail(reason: string, cause?: unknown): void {
    if (this.#taken) return;
    this.#failure ??= failure(this.peer, reason, cause);
    this.#socket.destroy();
    this.#wake?.();
  }

  #received(bytes: Buffer, times: PeerTimes): void {
    const frame = decodeFrame(bytes);
    switch (frame.kind) {
      case 'hello_refused':
      case 'snapshot_refused':
        return this.fail(`the receiver refused it: ${frame.reason}`);
      case 'empty':
        break;
      case 'hello':
      case 'batch':
      case 'chunk':
        return this.fail(`the receiver sent a frame of kind ${frame.kind}`);
      default: {
        const unknown: never = frame;
        throw new TypeError(`unknown frame ${JSON.stringify(unknown)}`);
      }
    }
    if (!this.#accepted) {
      this.#accepted = true;
      clearTimeout(this.#stall);
      // From here on the receiver's disk sets the pace.
      this.#stall = this.#stallAfter(times.snapshotStallMax);
    } else if (this.#sentAll) {
      this.#taken = true;
    } else {
      return this.fail('the receiver took it for complete before its last part');
    }
    this.#moved();
  }

  #stallAfter(milliseconds: number): NodeJS.Timeout {
    return setTimeout(() => this.fail(`nothing moved for ${milliseconds} ms`), milliseconds);
  }

  #moved(): void {
    this.#stall.refresh();
    this.#wake?.();
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure !== undefined) throw this.#failure;
  }
}

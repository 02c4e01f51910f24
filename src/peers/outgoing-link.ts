import type { TLSSocket } from 'node:tls';
import type { MemberId } from '../raft/index.ts';
import { dial } from './dialing.ts';
import { FrameAssembler, helloBytesMax } from './framing.ts';
import { silentLogger } from './options.ts';
import type { PeerMember, PeerTimes, LinkOptions } from './options.ts';
import { decodeFrame, encodeBatch, encodeFrame, isProtocolError, protocolError } from './peer-codec.ts';
import type { PeerBatch, PeerEvents } from './types.ts';

/** What a peer that does not read may make this server hold. Beyond it batches are dropped, as raft allows. */
const bufferBytesMax = 64 * 1024 * 1024;

/**
 * The link on which this server speaks to one peer. It is made again for ever:
 * waiting → (backoff) → connecting → (the peer's consent) → up → (any error) → waiting.
 */
export class OutgoingLink {
  readonly #options: LinkOptions;
  readonly #times: PeerTimes;
  readonly #peer: PeerMember;
  readonly #events: PeerEvents;
  #socket: TLSSocket | undefined;
  #up = false;
  #closed = false;
  #corked = false;
  /** Since the link was up last. */
  #attempts = 0;
  /** The next attempt, or the deadline of the present one. */
  #timer: NodeJS.Timeout | undefined;
  #pinger: NodeJS.Timeout | undefined;
  #pingsUnanswered = 0;
  #pingedAt = 0;
  /** The last thing logged, so that an absent peer fills no log. */
  #reported = '';

  constructor(options: LinkOptions, times: PeerTimes, peer: PeerMember, events: PeerEvents) {
    this.#options = options;
    this.#times = times;
    this.#peer = peer;
    this.#events = events;
  }

  get peer(): MemberId {
    return this.#peer.id;
  }

  start(): void {
    this.#connect();
  }

  /** The peer has just shown that it is there: an attempt that was put off is made now. */
  nudge(): void {
    if (this.#closed || this.#socket !== undefined) return;
    clearTimeout(this.#timer);
    this.#attempts = 0;
    this.#connect();
  }

  /** False: not sent. */
  send(batch: PeerBatch): boolean {
    const socket = this.#socket;
    if (!this.#up || socket === undefined || socket.writableLength > bufferBytesMax) return false;
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      // All that is sent in this turn becomes one write.
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    for (const frame of encodeBatch(batch)) socket.write(frame);
    return true;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.destroy();
  }

  #connect(): void {
    this.#attempts += 1;
    let socket: TLSSocket;
    try {
      socket = dial(this.#options, this.#peer, false);
    } catch (error) {
      this.#report(error instanceof Error ? error.message : String(error));
      this.#connectLater();
      return;
    }
    this.#socket = socket;
    this.#corked = false;
    const frames = new FrameAssembler(helloBytesMax);
    this.#timer = setTimeout(() => {
      socket.destroy(new Error(`no answer within ${this.#times.helloMax} ms`));
    }, this.#times.helloMax);
    socket.on('data', (chunk: Buffer) => {
      try {
        frames.push(chunk);
        for (let frame = frames.next(); frame !== undefined; frame = frames.next()) this.#received(frame);
      } catch (error) {
        // What the server itself throws is a bug, and no peer's fault.
        if (!isProtocolError(error)) throw error;
        socket.destroy(error);
      }
    });
    socket.on('error', (error) => this.#report(error.message));
    socket.on('end', () => socket.destroy());
    socket.on('close', () => this.#lost());
  }

  #received(bytes: Buffer): void {
    const frame = decodeFrame(bytes);
    if (frame.kind === 'empty') {
      if (this.#up) this.#pong();
      else this.#accepted();
      return;
    }
    if (frame.kind === 'hello_refused') {
      this.#options.onRefused?.(this.#peer.id, frame.reason);
      this.#socket?.destroy(new Error(`the peer refuses this server: ${frame.reason}`));
      return;
    }
    throw protocolError(`the peer sent a frame of kind ${frame.kind} on a link on which it is to listen`);
  }

  #accepted(): void {
    clearTimeout(this.#timer);
    this.#up = true;
    this.#attempts = 0;
    this.#pingsUnanswered = 0;
    this.#pinger = setInterval(() => this.#ping(), this.#times.pingEvery);
    this.#reported = '';
    const { logger = silentLogger } = this.#options;
    logger.info({ peer: this.#peer.id, name: this.#peer.name }, 'connected to a peer');
    this.#events.connected(this.#peer.id);
  }

  #ping(): void {
    // Pings are counted, not milliseconds: if this process was stopped for a while, the answers come first.
    if (this.#pingsUnanswered * this.#times.pingEvery >= this.#times.silenceMax) {
      this.#socket?.destroy(new Error(`no answer to ${this.#pingsUnanswered} pings`));
      return;
    }
    if (this.#pingsUnanswered === 0) this.#pingedAt = performance.now();
    this.#pingsUnanswered += 1;
    if ((this.#socket?.writableLength ?? 0) <= bufferBytesMax)
      this.#socket?.write(encodeFrame({ kind: 'empty' }));
  }

  #pong(): void {
    if (this.#pingsUnanswered > 0)
      this.#options.roundTrip?.(this.#peer.id, performance.now() - this.#pingedAt);
    this.#pingsUnanswered = 0;
  }

  #lost(): void {
    clearTimeout(this.#timer);
    clearInterval(this.#pinger);
    const wasUp = this.#up;
    this.#socket = undefined;
    this.#up = false;
    if (!this.#closed) this.#connectLater();
    if (wasUp && !this.#closed) {
      this.#report('the link was closed');
      this.#events.disconnected(this.#peer.id);
    }
  }

  #connectLater(): void {
    const { reconnectMin, reconnectMax } = this.#times;
    const highest = Math.min(reconnectMax, reconnectMin * 2 ** this.#attempts);
    const delay = reconnectMin + this.#options.random() * (highest - reconnectMin);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #report(reason: string): void {
    if (this.#closed || this.#reported === reason) return;
    this.#reported = reason;
    const { logger = silentLogger } = this.#options;
    logger.warn({ peer: this.#peer.id, name: this.#peer.name, reason }, 'no link to a peer');
  }
}

import type { TLSSocket } from 'node:tls';
import { dial, spokenVersion } from './dialing.ts';
import { FrameAssembler, helloBytesMax } from './framing.ts';
import { isOfVersion1, silentLogger } from './options.ts';
import type { PeerTimes, LinkOptions } from './options.ts';
import {
  agentsOrdersSince,
  decodeFrame,
  encodeBatch,
  encodeFrame,
  isProtocolError,
  peerProtocolVersion,
  peerProtocolVersionMin,
  protocolError,
  transferSince,
} from './peer-codec.ts';
import type { PeerAddress, PeerBatch, PeerEvents } from './types.ts';

/** What a peer that does not read may make this server hold. Beyond it batches are dropped, as raft allows. */
const bufferBytesMax = 64 * 1024 * 1024;

/**
 * The link on which this server speaks to one peer. It is made again for ever:
 * waiting → (backoff) → connecting → (the peer's consent) → up → (any error) → waiting.
 * Each time it says the newest version of the protocol that the TLS handshake shows both to know; where the peer is of
 * version 1, which negotiates nothing and ends such an attempt, it connects once more at once and says that.
 */
export class OutgoingLink {
  readonly #options: LinkOptions;
  readonly #times: PeerTimes;
  #peer: PeerAddress;
  readonly #events: PeerEvents;
  #socket: TLSSocket | undefined;
  #version = peerProtocolVersion;
  #up = false;
  #closed = false;
  /** Nobody listens to what becomes of it any more. */
  #silent = false;
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

  constructor(options: LinkOptions, times: PeerTimes, peer: PeerAddress, events: PeerEvents) {
    this.#options = options;
    this.#times = times;
    this.#peer = peer;
    this.#events = events;
  }

  get peer(): PeerAddress {
    return this.#peer;
  }

  /** Its address is taken at the next attempt. */
  set peer(peer: PeerAddress) {
    this.#peer = peer;
  }

  /** Of the protocol: as agreed while the link is up, else what is said next. */
  get version(): number {
    return this.#version;
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

  /** False: not sent. So is what the peer's version of the protocol does not have. */
  send(batch: PeerBatch): boolean {
    const socket = this.#socket;
    if (batch.transferTo !== undefined && this.#version < transferSince) return false;
    const ofAgents = batch.agentsOrder ?? batch.agentsOutcome;
    if (ofAgents !== undefined && this.#version < agentsOrdersSince) return false;
    if (!this.#up || socket === undefined || socket.writableLength > bufferBytesMax) return false;
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      // What is sent until then becomes one write.
      if (batch.raft.length === 0) process.nextTick(() => this.#uncork(socket));
    }
    for (const frame of encodeBatch(this.#asKnown(batch))) socket.write(frame);
    // The peer waits for raft's messages, which come together; this server has its own disk to write next.
    if (batch.raft.length > 0) this.#uncork(socket);
    return true;
  }

  #uncork(socket: TLSSocket): void {
    if (!this.#corked || socket !== this.#socket) return;
    this.#corked = false;
    socket.uncork();
  }

  /** A peer of an earlier version does not learn who takes agents, and hangs up on the word. */
  #asKnown(batch: PeerBatch): PeerBatch {
    if (this.#version >= agentsOrdersSince || batch.status?.draining === undefined) return batch;
    const { draining: _draining, ...status } = batch.status;
    return { ...batch, status };
  }

  close(): void {
    this.#silent = true;
    this.remove();
  }

  /** The peer is a member no more. If the link was up, it is still told that it is down. */
  remove(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.destroy();
  }

  #connect(): void {
    this.#attempts += 1;
    this.#dial();
  }

  #dial(): void {
    let socket: TLSSocket;
    try {
      socket = dial(this.#options, this.#peer, false, this.#version);
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
        for (let frame = frames.next(); frame !== undefined; frame = frames.next())
          this.#received(frame, socket);
      } catch (error) {
        // What the server itself throws is a bug, and no peer's fault.
        if (!isProtocolError(error)) throw error;
        socket.destroy(error);
      }
    });
    socket.on('error', (error) => {
      if (!this.#isToFallBack(socket)) this.#report(error.message);
    });
    socket.on('end', () => socket.destroy());
    socket.on('close', (withError) => this.#lost(socket, withError));
  }

  #received(bytes: Buffer, socket: TLSSocket): void {
    const frame = decodeFrame(bytes);
    if (frame.kind === 'empty') {
      if (this.#up) this.#pong();
      else this.#accepted(socket);
      return;
    }
    if (frame.kind === 'hello_refused') {
      const { kind: _kind, ...refusal } = frame;
      socket.destroy(new Error(`the peer refuses this server: ${refusal.reason}`));
      this.#events.refused(this.#peer.id, refusal);
      return;
    }
    throw protocolError(`the peer sent a frame of kind ${frame.kind} on a link on which it is to listen`);
  }

  #accepted(socket: TLSSocket): void {
    clearTimeout(this.#timer);
    this.#version = spokenVersion(socket, this.#version);
    this.#up = true;
    this.#attempts = 0;
    this.#pingsUnanswered = 0;
    this.#pinger = setInterval(() => this.#ping(), this.#times.pingEvery);
    this.#reported = '';
    const { logger = silentLogger } = this.#options;
    const { id, name } = this.#peer;
    logger.info({ peer: id, name, version: this.#version }, 'connected to a peer');
    this.#events.connected(id, this.#version);
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

  /**
   * A listener of version 1 hangs up on a hello of a later one without a word, for it has fields that it does not know.
   */
  #isToFallBack(socket: TLSSocket): boolean {
    const greeted = socket.authorized && !this.#up;
    return greeted && this.#version > peerProtocolVersionMin && isOfVersion1(socket);
  }

  #lost(socket: TLSSocket, withError: boolean): void {
    clearTimeout(this.#timer);
    clearInterval(this.#pinger);
    const wasUp = this.#up;
    const fallsBack = this.#isToFallBack(socket);
    this.#socket = undefined;
    this.#up = false;
    if (!this.#closed && fallsBack) {
      this.#version = peerProtocolVersionMin;
      this.#dial();
      return;
    }
    if (!this.#closed) this.#connectLater();
    if (wasUp) {
      this.#report('the link was closed');
      if (!this.#silent) this.#events.disconnected(this.#peer.id);
    } else if (!withError) {
      this.#report('the peer hung up without a word: it may not know this server (yet)');
    }
  }

  #connectLater(): void {
    const { reconnectMin, reconnectMax } = this.#times;
    const highest = Math.min(reconnectMax, reconnectMin * 2 ** this.#attempts);
    const delay = reconnectMin + this.#options.random() * (highest - reconnectMin);
    this.#version = peerProtocolVersion;
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #report(reason: string): void {
    if (this.#closed || this.#reported === reason) return;
    this.#reported = reason;
    const { logger = silentLogger } = this.#options;
    logger.warn({ peer: this.#peer.id, name: this.#peer.name, reason }, 'no link to a peer');
  }
}

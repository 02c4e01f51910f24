import type { TLSSocket } from 'node:tls';
import type { Admission } from './admission.ts';
import { FrameAssembler, frameBytesMax, helloBytesMax } from './framing.ts';
import type { LinkOptions, PeerTimes } from './options.ts';
import {
  agentsOrdersSince,
  decodeFrame,
  encodeFrame,
  isProtocolError,
  lineageSince,
  protocolError,
  standingSince,
  transferSince,
} from './peer-codec.ts';
import type { PeerFrame, PeerHello } from './peer-codec.ts';
import type { PeerAddress, PeerBatch, PeerEvents, SnapshotStreamPart } from './types.ts';

/** How long a refused peer may take to read why. */
const farewellMs = 1_000;

export interface IncomingLinkOwner {
  admit(hello: PeerHello): Admission;
  /** Called once, when the peer is let in: its earlier link of this kind is to be closed. */
  accepted(link: IncomingLink, peer: PeerAddress): void;
  closed(link: IncomingLink): void;
  warn(fields: object, message: string): void;
}

/** A link on which a peer speaks, once its hello has been taken. Its certificate has been verified before. */
export class IncomingLink {
  readonly #options: LinkOptions;
  readonly #times: PeerTimes;
  readonly #events: PeerEvents;
  readonly #owner: IncomingLinkOwner;
  readonly #socket: TLSSocket;
  readonly #frames = new FrameAssembler(helloBytesMax);
  /** The hello's, then any frame's. */
  #deadline: NodeJS.Timeout;
  #hello: PeerHello | undefined;
  #peer: PeerAddress | undefined;
  /** It was told why, and nothing more is heard. */
  #refused = false;

  constructor(
    options: LinkOptions,
    times: PeerTimes,
    socket: TLSSocket,
    events: PeerEvents,
    owner: IncomingLinkOwner,
  ) {
    this.#options = options;
    this.#times = times;
    this.#socket = socket;
    this.#events = events;
    this.#owner = owner;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    this.#deadline = setTimeout(() => this.#fail(protocolError('no hello in time')), times.helloMax);
    socket.on('data', this.#onData);
    socket.on('end', () => socket.destroy());
    socket.on('close', () => {
      clearTimeout(this.#deadline);
      owner.closed(this);
    });
  }

  /** undefined: none was heard, or it was refused. */
  get hello(): PeerHello | undefined {
    return this.#hello;
  }

  get bulk(): boolean {
    return this.#hello?.bulk ?? false;
  }

  /** undefined: it has not been let in. */
  get peer(): PeerAddress | undefined {
    return this.#peer;
  }

  close(): void {
    this.#socket.destroy();
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#refused || this.#socket.destroyed) return;
    this.#deadline.refresh();
    try {
      this.#frames.push(chunk);
      for (let bytes = this.#frames.next(); bytes !== undefined; bytes = this.#frames.next()) {
        const frame = decodeFrame(bytes);
        if (this.#hello === undefined || this.#peer === undefined) this.#greet(frame);
        else this.#received(frame, this.#hello, this.#peer);
        // What was received may have changed who is a member.
        if (this.#refused || this.#socket.destroyed) return;
        if (this.bulk && this.#peer !== undefined) return this.#beginBulk(this.#peer);
      }
    } catch (error) {
      // What the server itself throws is a bug, and no peer's fault.
      if (!isProtocolError(error)) throw error;
      this.#fail(error);
    }
  };

  #greet(frame: PeerFrame): void {
    if (frame.kind !== 'hello') throw protocolError(`a frame of kind ${frame.kind} came before the hello`);
    const { hello } = frame;
    const admission = this.#owner.admit(hello);
    switch (admission.kind) {
      case 'peer':
        return this.#letIn(admission.peer, hello);
      case 'refused': {
        const { reason, removed, outdated } = admission.refusal;
        const { version } = hello;
        // A dialer of a version that does not have a field would not understand why at all.
        this.#refuse({
          kind: 'hello_refused',
          reason,
          removed: removed && version >= standingSince,
          ...(outdated && version >= lineageSince && { outdated }),
        });
        return this.#warn(reason, 'refused a peer');
      }
      case 'stranger':
        return this.#fail(protocolError(admission.reason));
      default: {
        const unknown: never = admission;
        throw new TypeError(`unknown admission ${JSON.stringify(unknown)}`);
      }
    }
  }

  #letIn(peer: PeerAddress, hello: PeerHello): void {
    clearTimeout(this.#deadline);
    const silenceMax = hello.bulk ? this.#times.snapshotStallMax : this.#times.silenceMax * 2;
    this.#deadline = setTimeout(() => this.#fail(protocolError(`silent for ${silenceMax} ms`)), silenceMax);
    this.#hello = hello;
    this.#peer = peer;
    this.#frames.limit = frameBytesMax;
    this.#owner.accepted(this, peer);
    this.#socket.write(encodeFrame({ kind: 'empty' }));
  }

  #received(frame: PeerFrame, { run, version }: PeerHello, peer: PeerAddress): void {
    if (frame.kind === 'batch') {
      this.#checkSender(frame.batch, peer);
      if (frame.batch.transferTo !== undefined && version < transferSince)
        throw protocolError(`a peer of version ${version} asked for a transfer of leadership`);
      const { agentsOrder, agentsOutcome, status } = frame.batch;
      if (version < agentsOrdersSince && (agentsOrder ?? agentsOutcome ?? status?.draining) !== undefined)
        throw protocolError(`a peer of version ${version} spoke of agents`);
      this.#events.received(peer.id, run, frame.batch);
    } else if (frame.kind === 'empty') {
      this.#socket.write(encodeFrame({ kind: 'empty' }));
      // It asks about once a second; who asks without listening is broken.
      if (this.#socket.writableLength > helloBytesMax * 16) throw protocolError('the peer does not read');
    } else {
      throw protocolError(`a frame of kind ${frame.kind} is out of place here`);
    }
  }

  /** Nobody speaks for another member. */
  #checkSender({ raft }: PeerBatch, peer: PeerAddress): void {
    for (const { from, to } of raft) {
      if (from !== peer.id || to !== this.#options.memberId) {
        throw protocolError(`member ${peer.id} sent a message from ${from} to ${to}`);
      }
    }
  }

  #beginBulk(peer: PeerAddress): void {
    const socket = this.#socket;
    socket.off('data', this.#onData);
    socket.pause();
    this.#bulk(peer).catch((error: unknown) => this.#fail(error));
  }

  /** Takes one part at a time: what is not read fills the sender's socket, which then waits. */
  async #bulk(peer: PeerAddress): Promise<void> {
    const socket = this.#socket;
    let stream = await this.#takeFrames(peer);
    if (stream !== 'more') return;
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      this.#deadline.refresh();
      this.#frames.push(chunk as Buffer);
      stream = await this.#takeFrames(peer);
      if (stream !== 'more') return;
    }
  }

  /** All frames that have arrived whole. 'over': the stream has ended, well or not. */
  async #takeFrames(peer: PeerAddress): Promise<'more' | 'over'> {
    for (let bytes = this.#frames.next(); bytes !== undefined; bytes = this.#frames.next()) {
      const frame = decodeFrame(bytes);
      if (frame.kind !== 'chunk')
        throw protocolError(`a frame of kind ${frame.kind} is out of place in a snapshot`);
      const { stream } = frame;
      // Time that this server's own disk takes is not the sender's silence.
      clearTimeout(this.#deadline);
      const refusal = await this.#take(stream, peer);
      if (this.#socket.destroyed) return 'over';
      this.#deadline.refresh();
      if (refusal !== undefined) {
        this.#refuse({ kind: 'snapshot_refused', point: stream.point, reason: refusal });
        this.#warn(refusal, 'refused a snapshot');
        return 'over';
      }
      if (stream.part.last) {
        this.#refuse({ kind: 'empty' });
        return 'over';
      }
    }
    return 'more';
  }

  /** The reason why the server does not take it; undefined: taken. */
  async #take(stream: SnapshotStreamPart, peer: PeerAddress): Promise<string | undefined> {
    try {
      await this.#events.snapshotPart(peer.id, stream);
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /**
   * Says one last thing and hangs up. What still arrives is read and thrown away: closing a socket with unread data
   * would reset it, and the peer would never read why.
   */
  #refuse(frame: PeerFrame): void {
    const socket = this.#socket;
    this.#refused = true;
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => socket.destroy(), farewellMs);
    socket.end(encodeFrame(frame));
    socket.on('data', () => undefined);
    socket.resume();
  }

  #fail(error: unknown): void {
    if (this.#socket.destroyed) return;
    this.#warn(error instanceof Error ? error.message : String(error), 'closed the link of a peer');
    this.#socket.destroy();
  }

  #warn(reason: string, message: string): void {
    const who = this.#peer === undefined ? {} : { peer: this.#peer.id };
    this.#owner.warn({ ...who, reason }, message);
  }
}

/** One socket to one server: its frames, and when it was last heard. Knows nothing of requests. */
import type { ClientFrame, FrameCodec, Hello, Request } from '../protocol/index.ts';
import type { ClientSocket } from './environment.ts';
import type { LinkId } from './connection-state.ts';

export interface ClientIdentity {
  readonly clientName: string;
  readonly clientVersion: string;
}

export class Link {
  readonly id: LinkId;
  readonly endpoint: string;
  readonly #codec: FrameCodec;
  readonly #identity: ClientIdentity;
  #socket: ClientSocket | undefined;
  /** Hello was sent: the server knows who speaks. */
  greeted = false;
  /** Welcome was received: more frames may follow the first. */
  welcomed = false;
  heardAtMs: number;
  /** For hello. */
  token: string | undefined;

  constructor(id: LinkId, endpoint: string, codec: FrameCodec, identity: ClientIdentity, nowMs: number) {
    this.id = id;
    this.endpoint = endpoint;
    this.#codec = codec;
    this.#identity = identity;
    this.heardAtMs = nowMs;
  }

  set socket(socket: ClientSocket) {
    this.#socket = socket;
  }

  get bufferedBytes(): number {
    return this.#socket?.bufferedBytes ?? 0;
  }

  /** The first frame carries hello. */
  send(requests: readonly Request[]): void {
    const frame: ClientFrame = this.greeted ? { requests } : { hello: this.#hello(), requests };
    this.greeted = true;
    this.#socket?.send(this.#codec.encodeClientFrame(frame));
  }

  /** How many bytes of the first frame the token takes. */
  get tokenBytes(): number {
    return this.token?.length ?? 0;
  }

  #hello(): Hello {
    const { token } = this;
    return token === undefined ? this.#identity : { ...this.#identity, token };
  }

  close(code: number, reason: string): void {
    this.#socket?.close(code, reason);
  }

  terminate(): void {
    this.#socket?.terminate();
  }
}

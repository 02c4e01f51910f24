/** What the client's core takes from outside, so that a simulation can drive it: sockets, time, chance, the codec. */
import type { FrameCodec } from '../protocol/index.ts';

/** Why a socket could not be opened or kept, when no close code says it. */
export interface SocketFailure {
  readonly kind:
    /** Nobody answers, or the line broke: worth another try. */
    | 'unreachable'
    /** The server does not accept our certificate. */
    | 'identity_refused'
    /** It hung up between the TLS handshake and its first answer, as Node's servers do for a certificate they refuse. */
    | 'dropped'
    /** We do not accept the server's certificate. */
    | 'server_untrusted'
    /** What answers does not speak this protocol. */
    | 'not_futurestore';
  /** For people; never a secret. */
  readonly text: string;
  /** Of `unreachable`: the server has no room, and says when to come back. */
  readonly retryAfterMs?: number | undefined;
}

/** None of them is called before `openSocket` has returned, nor after `onClose`. */
export interface SocketHandlers {
  onOpen(): void;
  /** `binary`: whether it was a binary message. The bytes may be reused by the socket afterwards. */
  onMessage(bytes: Uint8Array, binary: boolean): void;
  /** Anything else was heard from the server, such as a ping. */
  onActivity(): void;
  /** The socket has taken enough of what it had buffered. */
  onDrain(): void;
  /** Once, at the end, however it ended. */
  onClose(code: number, reason: string, failure: SocketFailure | undefined): void;
}

export interface ClientSocket {
  send(bytes: Uint8Array): void;
  /** Bytes that were given to `send` and not yet taken by the transport. */
  readonly bufferedBytes: number;
  /** Closes in good order; `onClose` follows within about a second even if the other side is silent. */
  close(code: number, reason: string): void;
  /** Drops it at once; `onClose` follows. */
  terminate(): void;
}

/** A timer as its maker knows it. */
export type TimerHandle = unknown;

export interface ClientEnvironment {
  readonly codec: FrameCodec;
  openSocket(endpoint: string, handlers: SocketHandlers): ClientSocket;
  /** Milliseconds since 1970, never going backwards. */
  now(): number;
  setTimer(delayMs: number, callback: () => void): TimerHandle;
  clearTimer(handle: TimerHandle): void;
  /** Calls back when the present turn is over: what was asked for in one turn shares a frame. */
  defer(callback: () => void): void;
  /** In [0, 1). */
  random(): number;
  randomBytes(count: number): Uint8Array;
}

/** The part of a logger that the client uses; pino's and the console's shapes fit. */
export interface ClientLogger {
  debug(details: object, message: string): void;
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

/** Where agents come from: what a gateway needs of the sockets, so that they need not be real ones. */
import type { RawData } from 'ws';
import type { FrameCodec } from '../protocol/index.ts';
import type { Identity } from './identity.ts';
import type { GatewaySetup } from './settings.ts';

/** The part of a WebSocket of package ws that a connection uses. */
export interface AgentWebSocket {
  readonly bufferedAmount: number;
  on(event: 'message', listener: (data: RawData, isBinary: boolean) => void): unknown;
  on(event: 'pong', listener: () => void): unknown;
  on(event: 'close', listener: (code: number) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  send(data: Uint8Array, options: { readonly binary: boolean; readonly compress: boolean }): void;
  ping(): void;
  pause(): void;
  resume(): void;
  close(code: number, reason: string): void;
  terminate(): void;
}

/** What is below it: it tells of raw bytes, and that there is room for more. */
export interface AgentStream {
  on(event: 'drain', listener: () => void): unknown;
  on(event: 'data', listener: (chunk: Uint8Array) => void): unknown;
  off(event: 'data', listener: (chunk: Uint8Array) => void): unknown;
}

/** One that may say hello now. */
export interface Arrival {
  readonly ws: AgentWebSocket;
  readonly socket: AgentStream;
  readonly codec: FrameCodec;
  readonly identity: Identity;
}

export interface Door {
  listen(): Promise<{ readonly port: number }>;
  stopAccepting(): void;
  /** Every socket is destroyed; resolves when none is left. */
  close(): Promise<void>;
}

export type OpenDoor = (setup: GatewaySetup, arrived: (arrival: Arrival) => void) => Door;

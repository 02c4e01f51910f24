/** Where agents come from: what a gateway needs of the sockets, so that they need not be real ones. */
import type { RawData } from 'ws';
import type { FrameCodec } from '../protocol/index.ts';
import type { RealmDocument } from '../scopes/index.ts';
import type { Identity, IdentityVerdict } from './identity.ts';
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
  /** Where it comes from, for logs. */
  readonly remote?: string | undefined;
  /** By its certificate; undefined: the token in hello is to tell. */
  readonly identity: Identity | undefined;
  /** Undefined: no tokens are taken. */
  readonly identify: Identify | undefined;
  /** Up to which additions to the protocol it can be told (`levelAmong`). */
  readonly level: number;
}

/** Who it is by this token, together with the certificate that it came with. Never rejects. */
export type Identify = (token: string) => Promise<IdentityVerdict>;

export interface IdentityJudge {
  /** Changes whenever those who are connected are to be judged again. */
  readonly version: number;
  /** The same identity, where nothing about it has changed. */
  judgeAgain(identity: Identity, wallMs: number): IdentityVerdict;
}

/** PEM: a certificate (with what chain it needs) and its private key. */
export interface CertificateAndKey {
  readonly cert: string;
  readonly key: string;
}

/** A listening socket of this process, which another gateway has opened. */
export interface SharedSocket {
  readonly descriptor: number;
}

export interface Listening {
  readonly port: number;
  /** Of a real socket. */
  readonly descriptor?: number;
}

export interface Door {
  readonly judge: IdentityJudge;
  /** Rejects with CONFIGURATION_INVALID for realms that cannot be used, and then keeps those it had. */
  replaceRealms(realms: Readonly<Record<string, RealmDocument>>): Promise<void>;
  /** For new connections. Throws CONFIGURATION_INVALID where TLS cannot use them, and then keeps those it had. */
  replaceCertificate(certificate: CertificateAndKey): void;
  /** 48 secret bytes, the same for all servers of the cluster: with them one can resume what another has begun. */
  replaceTicketKeys(keys: Uint8Array): void;
  /** Reads revocation lists now, where their files have changed. */
  look(): Promise<void>;

  /**
   * Again after `stopAccepting`: on the same port. Rejects where the address cannot be listened on (any more). `shared`:
   * takes connections from a socket that listens already.
   */
  listen(shared?: SharedSocket): Promise<Listening>;
  /**
   * Who is connected stays; who comes is refused by the system, which costs this server nothing. `keepDescriptor`: that of
   * the listening socket is somebody else's by now.
   */
  stopAccepting(keepDescriptor?: boolean): void;
  /** Every socket is destroyed; resolves when none is left. */
  close(): Promise<void>;
}

/** `identitiesChanged`: those who are connected are to be judged again, since `judge` has another version now. */
export type OpenDoor = (
  setup: GatewaySetup,
  arrived: (arrival: Arrival) => void,
  identitiesChanged: () => void,
) => Door;

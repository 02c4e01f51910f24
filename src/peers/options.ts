import type { TLSSocket } from 'node:tls';
import { FuturestoreError } from '../protocol/index.ts';
import { asMemberId } from '../raft/index.ts';
import type { MemberId } from '../raft/index.ts';
import type { AcceptPeer, PeerAddress, PeerLineage, PeerStanding } from './types.ts';

export interface PeerLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface TlsTransportOptions {
  readonly memberId: number;
  /** The CN of this server's certificate. */
  readonly memberName: string;
  /** Where peers reach this server: 'host:port'. It tells them, for those who have not heard of it. */
  readonly address: string;
  readonly clusterId: string;
  readonly run: number;
  /** 16 bytes. */
  readonly diskId: Uint8Array;
  /** All members at the start, until `setMembers`; this server's own entry is ignored. */
  readonly members: readonly PeerAddress[];
  /** Port 0: any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** PEM. The servers' own CA, which signs no agents. */
  readonly ca: string | Buffer;
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  /** Of this server. Asked for each hello. */
  readonly standing: () => PeerStanding;
  /** Of its disk. */
  readonly lineage: PeerLineage;
  /**
   * Asked about each member that has proved its name: it may be refused, for example for a disk that is not the one it
   * had. Asked also about an id that is in no list, by somebody whose certificate is of the servers' CA but proves no
   * id: who is still in none after the answer is not let in.
   */
  readonly acceptPeer?: AcceptPeer;
  readonly logger?: PeerLogger;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Of a frame to the peer and the answer back, about once a second. */
  readonly roundTrip?: (peer: MemberId, ms: number) => void;
  /** For tests. Defaults: `defaultTimes`. */
  readonly times?: Partial<PeerTimes>;
}

/** PEM: what a server shows the others, and by what it knows them. */
export type PeerCertificates = Pick<TlsTransportOptions, 'ca' | 'cert' | 'key'>;

/** The same after a check. */
export interface LinkOptions extends Omit<TlsTransportOptions, keyof PeerCertificates> {
  readonly memberId: MemberId;
  /** Replaced as a whole while the server runs; a link takes what is there when it is made. */
  certificates: PeerCertificates;
}

/** Throws a RangeError for an id that is none. */
export const checkedOptions = ({ ca, cert, key, ...rest }: TlsTransportOptions): LinkOptions => ({
  ...rest,
  memberId: asMemberId(rest.memberId),
  certificates: { ca, cert, key },
});

/** All in milliseconds. */
export interface PeerTimes {
  /** From the connection to the hello, and from the attempt to connect to the peer's consent. */
  readonly helloMax: number;
  readonly reconnectMin: number;
  readonly reconnectMax: number;
  readonly pingEvery: number;
  /** A link on which nothing arrives for so long is closed. Several pings: one may be late on a busy peer. */
  readonly silenceMax: number;
  /** A snapshot of which nothing moves for so long is given up. The receiver's disk may be slow. */
  readonly snapshotStallMax: number;
}

export const defaultTimes: PeerTimes = {
  helloMax: 5_000,
  reconnectMin: 100,
  reconnectMax: 2_000,
  pingEvery: 1_000,
  silenceMax: 5_000,
  snapshotStallMax: 60_000,
};

export const silentLogger: PeerLogger = { info() {}, warn() {} };

/** Throws CONFIGURATION_INVALID. */
export const parseAddress = (address: string): { readonly host: string; readonly port: number } => {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(address);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port < 1 || port > 65_535) {
    throw new FuturestoreError(
      'CONFIGURATION_INVALID',
      `The peer address "${address}" is not host:port. Write for example "server1.example.com:7420" or "[::1]:7420".`,
    );
  }
  return { host, port };
};

/**
 * Negotiated in the TLS handshake, the newest first: where none is, the other side is of version 1. A listener can't say
 * itself what it does not know, because it hangs up on fields that are new to it.
 */
const applicationProtocols = {
  'futurestore-peer/7': 7,
  'futurestore-peer/6': 6,
  'futurestore-peer/5': 5,
  'futurestore-peer/4': 4,
  'futurestore-peer/3': 3,
  'futurestore-peer/2': 2,
} as const;

/** The version that both sides of a link know, if it is not 1; undefined: it is. Only after the handshake. */
export const negotiatedVersion = ({ alpnProtocol }: TLSSocket): number | undefined =>
  Object.entries(applicationProtocols).find(([name]) => name === alpnProtocol)?.[1];

/** Only after the handshake. */
export const isOfVersion1 = (socket: TLSSocket): boolean => negotiatedVersion(socket) === undefined;

/** What both directions of a link have in common. */
export const tlsOptions = ({ certificates: { ca, cert, key } }: LinkOptions) => ({
  ALPNProtocols: Object.keys(applicationProtocols),
  ca,
  cert,
  key,
  minVersion: 'TLSv1.3' as const,
  rejectUnauthorized: true,
});

/** The one CN of a verified certificate; undefined if it has none or several. */
export const commonNameOf = (certificate: {
  readonly subject?: { readonly CN?: unknown };
}): string | undefined => {
  const name = certificate.subject?.CN;
  return typeof name === 'string' && name !== '' ? name : undefined;
};

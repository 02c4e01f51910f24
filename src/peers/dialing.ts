/** What a link that this server makes begins with, be it for messages or for a snapshot. */
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { FuturestoreError } from '../protocol/index.ts';
import { commonNameOf, negotiatedVersion, parseAddress, tlsOptions } from './options.ts';
import type { LinkOptions } from './options.ts';
import { encodeFrame, lineageSince, standingSince } from './peer-codec.ts';
import type { PeerHello } from './peer-codec.ts';
import type { PeerAddress } from './types.ts';

/** What this server says of its disk in a hello of this version. */
const disclosed = (
  { standing, address, lineage }: LinkOptions,
  version: number,
): Pick<PeerHello, 'standing' | 'address' | 'lineage'> => ({
  ...(version >= standingSince && { standing: standing(), address }),
  ...(version >= lineageSince && { lineage }),
});

/** The version in which the hello is said where this one was wanted. Only after the handshake. */
export const spokenVersion = (socket: TLSSocket, wanted: number): number =>
  Math.min(wanted, negotiatedVersion(socket) ?? wanted);

/**
 * Connects and says hello, of this version of the protocol or the newest that the peer knows, as soon as the peer has proved its name. Throws
 * CONFIGURATION_INVALID for its address.
 */
export const dial = (options: LinkOptions, peer: PeerAddress, bulk: boolean, version: number): TLSSocket => {
  const { host, port } = parseAddress(peer.address);
  const socket = connect({
    ...tlsOptions(options),
    host,
    port,
    // The name in the certificate is the member's, wherever it lives.
    checkServerIdentity: (_host, certificate) => {
      const name = commonNameOf(certificate);
      if (name === peer.name) return undefined;
      return new FuturestoreError(
        'UNAUTHENTICATED',
        `${peer.address} has the certificate of "${name}" instead of "${peer.name}". Check the addresses of the members.`,
      );
    },
  });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 10_000);
  socket.once('secureConnect', () => {
    const { clusterId, memberId, run, diskId } = options;
    const spoken = spokenVersion(socket, version);
    const hello = { clusterId, from: memberId, to: peer.id, run, diskId, version: spoken, bulk };
    socket.write(encodeFrame({ kind: 'hello', hello: { ...hello, ...disclosed(options, spoken) } }));
  });
  return socket;
};

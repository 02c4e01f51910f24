/**
 * The links between servers: what one server tells another, as frames on TLS streams.
 *
 * Owns the port for peers, the sockets, the codec of frames, the version spoken on each link, and who may speak: a
 * certificate of the servers' own CA whose CN is the name of a present member, and a hello of that member, for this
 * cluster and server. (The server may make a member of one that says hello.) Who the members are, and whether one of them is fit to take part, it is told. May call the doors
 * of protocol, raft and storage for their types and codecs. What a message means is the server's business.
 *
 * Promises: frames of one link arrive in order or not at all; what is received has passed every check of its form, and
 * comes from the member it says it is from, which was one at that moment; a peer that is slow, silent, gone or hostile
 * costs bounded memory and is dialled again; servers of the versions before are understood, and told nothing that they
 * do not know; a snapshot travels beside the messages, at the pace of its receiver.
 */
export { createTlsTransport } from './tls-transport.ts';
export type { TlsTransport } from './tls-transport.ts';
export type { PeerCertificates, TlsTransportOptions } from './options.ts';
/** For a transport that is not made of sockets: the frames of a batch as they are on a link, and back. */
export { lengthBytes } from './framing.ts';
export { decodeFrame, encodeBatch, lineageMax, peerProtocolVersion } from './peer-codec.ts';
export * from './types.ts';

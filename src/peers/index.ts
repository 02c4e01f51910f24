/**
 * The links between servers: what one server tells another, as frames on TLS streams.
 *
 * Owns the port for peers, the sockets, the codec of frames, and who may speak: a certificate of the servers' own CA
 * whose CN is the name of a configured member, and a hello of the same member, cluster and version. May call the doors
 * of protocol, raft and storage for their types and codecs. What a message means is the server's business.
 *
 * Promises: frames of one link arrive in order or not at all; what is received has passed every check of its form, and
 * comes from the member it says it is from; a peer that is slow, silent, gone or hostile costs bounded memory and is
 * dialled again; a snapshot travels beside the messages, at the pace of its receiver.
 */
export { createTlsTransport } from './tls-transport.ts';
export type { TlsTransport } from './tls-transport.ts';
export type { TlsTransportOptions } from './options.ts';
export * from './types.ts';

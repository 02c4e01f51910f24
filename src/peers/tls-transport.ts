import assert from 'node:assert/strict';
import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer } from 'node:tls';
import type { Server, TLSSocket } from 'node:tls';
import { FuturestoreError, LogBudget, WaitingRoom } from '../protocol/index.ts';
import type { MemberId, Term } from '../raft/index.ts';
import { admissionOf, renewedRefusalOf } from './admission.ts';
import { IncomingLink } from './incoming-link.ts';
import { Members } from './members.ts';
import { checkedOptions, commonNameOf, defaultTimes, silentLogger, tlsOptions } from './options.ts';
import type { PeerLogger, PeerCertificates, PeerTimes, LinkOptions, TlsTransportOptions } from './options.ts';
import { OutgoingLink } from './outgoing-link.ts';
import { peerProtocolVersion } from './peer-codec.ts';
import { SnapshotSender } from './snapshot-sender.ts';
import type { PeerAddress, PeerBatch, PeerEvents, PeerTransport, SnapshotSource } from './types.ts';

/** Sockets of whom nothing is known yet: enough for all peers to come at once, little enough to hold. */
const unauthenticatedMax = 64;
const refusalLinesPerSecondMax = 10;
/** A resumed session counts as authorized even where it never had a certificate. */
const withoutTickets = constants.SSL_OP_NO_TICKET;
/** A certificate's name may be kilobytes. */
const loggedNameMax = 64;

export interface TlsTransport extends PeerTransport {
  /** The port listened on. Only after `start`. */
  readonly port: number;
  /**
   * For links that are made from now on. Throws CONFIGURATION_INVALID where TLS cannot use them, and then keeps those it
   * had.
   */
  replaceCertificates(certificates: PeerCertificates): void;
}

class TlsPeerTransport implements TlsTransport {
  readonly #options: LinkOptions;
  readonly #times: PeerTimes;
  readonly #logger: PeerLogger;
  readonly #members: Members;
  readonly #outgoing = new Map<MemberId, OutgoingLink>();
  readonly #incoming = new Set<IncomingLink>();
  readonly #senders = new Set<SnapshotSender>();
  readonly #server: Server;
  /** Every socket that was accepted, whatever has become of it. */
  readonly #sockets = new Set<Socket>();
  /** Those of them that have not shown yet that they are a peer's. */
  readonly #waiting = new WaitingRoom<Socket>(unauthenticatedMax);
  /** Anybody may knock: what is refused must not fill the disk. */
  readonly #logBudget = new LogBudget(refusalLinesPerSecondMax);
  #events: PeerEvents | undefined;
  #closed = false;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#times = { ...defaultTimes, ...options.times };
    this.#logger = options.logger ?? silentLogger;
    this.#members = new Members(options.memberId, options.members);
    this.#server = createServer({
      ...tlsOptions(options),
      requestCert: true,
      // Node would drop the socket without a word; #secured refuses it and says whose it was.
      rejectUnauthorized: false,
      secureOptions: withoutTickets,
      handshakeTimeout: this.#times.helloMax,
    });
    this.#server.on('connection', (socket) => this.#connected(socket));
    this.#server.on('secureConnection', (socket) => this.#secured(socket));
    this.#server.on('tlsClientError', (error, socket) => {
      this.#refused({ from: socket.remoteAddress, reason: error.message });
      // Node reports a handshake that takes too long, but leaves the socket open.
      socket.destroy();
    });
  }

  get port(): number {
    const address = this.#server.address();
    assert(typeof address === 'object' && address !== null, 'the transport is not listening');
    return address.port;
  }

  replaceCertificates(certificates: PeerCertificates): void {
    const { ca, cert, key, minVersion } = tlsOptions({ ...this.#options, certificates });
    const context = { ca, cert, key, minVersion, secureOptions: withoutTickets };
    try {
      // What cannot be a context throws, and leaves the server the one it has.
      this.#server.setSecureContext(context);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const text = `the certificates for other servers cannot be used: ${why}; give a CA, a certificate and its key`;
      throw new FuturestoreError('CONFIGURATION_INVALID', text, { cause: error });
    }
    this.#options.certificates = certificates;
  }

  async start(events: PeerEvents): Promise<void> {
    assert(
      this.#events === undefined && !this.#closed,
      'the transport was started twice, or after it was closed',
    );
    this.#events = events;
    const { host, port } = this.#options.listen;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause) => {
        const message = `Cannot listen for peers on ${host}:${port} (${cause.message}). Choose another address or port.`;
        reject(new FuturestoreError('CONFIGURATION_INVALID', message, { cause }));
      });
      this.#server.listen({ host, port }, resolve);
    });
    // Later errors are of single connections (out of file descriptors, for example): the others go on.
    this.#server.on('error', (error) =>
      this.#logger.warn({ reason: error.message }, 'the peer port had an error'),
    );
    this.#followMembers(events);
  }

  setMembers(members: readonly PeerAddress[]): void {
    this.#members.replace(members);
    if (this.#events !== undefined && this.#server.listening) this.#followMembers(this.#events);
  }

  /** Makes the links those with the members, whatever they were. */
  #followMembers(events: PeerEvents): void {
    if (this.#closed) return;
    for (const [id, link] of this.#outgoing) {
      if (this.#members.includes(link.peer)) continue;
      this.#outgoing.delete(id);
      link.remove();
    }
    for (const sender of this.#senders) {
      if (!this.#members.includes(sender.peer)) sender.fail('it is not a member any more');
    }
    for (const link of this.#incoming) this.#keepOrClose(link);
    for (const member of this.#members.all()) {
      const known = this.#outgoing.get(member.id);
      if (known !== undefined) {
        known.peer = member;
        continue;
      }
      const link = new OutgoingLink(this.#options, this.#times, member, events);
      this.#outgoing.set(member.id, link);
      link.start();
    }
  }

  #keepOrClose(link: IncomingLink): void {
    const { peer, hello } = link;
    if (peer === undefined || hello === undefined) return;
    if (!this.#members.includes(peer)) return link.close();
    const refusal = renewedRefusalOf(this.#options, peer, hello);
    if (refusal === undefined) return;
    // Its next hello is refused, with the reason.
    this.#logger.warn({ peer: peer.id, reason: refusal.reason }, 'a peer may not take part any more');
    link.close();
  }

  send(to: MemberId, batch: PeerBatch): boolean {
    return this.#outgoing.get(to)?.send(batch) ?? false;
  }

  async sendSnapshot(to: MemberId, term: Term, source: SnapshotSource): Promise<void> {
    const peer = this.#members.get(to);
    if (peer === undefined || this.#closed) {
      throw new FuturestoreError(
        'UNAVAILABLE',
        `There is no link to member ${to}: it is no member, or all are closed.`,
      );
    }
    const version = this.#outgoing.get(to)?.version ?? peerProtocolVersion;
    const sender = new SnapshotSender(this.#options, this.#times, peer, version, term, source);
    this.#senders.add(sender);
    try {
      await sender.run();
    } finally {
      this.#senders.delete(sender);
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const link of this.#outgoing.values()) link.close();
    for (const sender of this.#senders) sender.fail('this server is stopping');
    for (const link of this.#incoming) link.close();
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => void this.#server.close(resolve));
  }

  #connected(socket: Socket): void {
    if (this.#closed) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    this.#waiting.enter(socket);
    socket.on('close', () => {
      this.#waiting.leave(socket);
      this.#sockets.delete(socket);
    });
  }

  #secured(socket: TLSSocket): void {
    socket.on('error', (error) => {
      this.#logger.info({ from: socket.remoteAddress, reason: error.message }, 'the link of a peer broke');
    });
    const name = commonNameOf(socket.getPeerCertificate());
    const from = { from: socket.remoteAddress, name: name?.slice(0, loggedNameMax) };
    if (!socket.authorized || name === undefined || this.#events === undefined || this.#closed) {
      const reason = socket.authorized ? 'it has not one name' : String(socket.authorizationError);
      this.#refused({ ...from, reason });
      socket.destroy();
      return;
    }
    // Who has nobody's name may be a server that has been removed, and is to be told so; it stays among the unknown.
    const known = this.#members.named(name).length > 0;
    if (known) this.#waiting.leave(socket);
    const link = new IncomingLink(this.#options, this.#times, socket, this.#events, {
      admit: (hello) => admissionOf(this.#options, this.#members, name, hello),
      accepted: (accepted, peer) => {
        this.#waiting.leave(socket);
        this.#accepted(accepted, peer);
      },
      closed: (closed) => {
        this.#incoming.delete(closed);
      },
      warn: (fields, message) => {
        if (known) this.#logger.warn({ name, ...fields }, message);
        else this.#refused({ ...from, ...fields });
      },
    });
    this.#incoming.add(link);
  }

  #refused(fields: object): void {
    if (!this.#logBudget.admits(performance.now())) return;
    const suppressed = this.#logBudget.takeSuppressed();
    const counted = suppressed === 0 ? fields : { ...fields, suppressed };
    this.#logger.warn(counted, 'refused a connection to the peer port: it is of no peer');
  }

  /** A peer has one link of each kind: its newest, since it makes one only when it has none. */
  #accepted(accepted: IncomingLink, { id }: PeerAddress): void {
    this.#outgoing.get(id)?.nudge();
    for (const link of this.#incoming) {
      if (link !== accepted && link.peer?.id === id && link.bulk === accepted.bulk) link.close();
    }
  }
}

/**
 * Links to the other members over TLS 1.3, with certificates of the servers' own CA on both sides. This server dials
 * each other member, and speaks on the links it made; it listens on those that were made to it. `start` throws
 * CONFIGURATION_INVALID for an address it cannot listen on.
 */
export const createTlsTransport = (options: TlsTransportOptions): TlsTransport =>
  new TlsPeerTransport(checkedOptions(options));

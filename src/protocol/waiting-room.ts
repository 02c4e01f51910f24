/**
 * Sockets that have not shown yet who they are. There is room for so many; when it is full the one that has waited
 * longest makes place, so that sockets that only sit there keep nobody out.
 */
interface Peer {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

interface Waiting extends Peer {
  destroy(): unknown;
}

export class WaitingRoom<Socket extends Waiting> {
  readonly #places: number;
  /** By remote address and port, in the order of arrival: a socket and the TLS socket around it have the same. */
  readonly #sockets = new Map<string, Socket>();

  constructor(places: number) {
    this.#places = places;
  }

  /** Gives the socket that had to make place, destroyed. `places`: where others wait in the same room elsewhere. */
  enter(socket: Socket, places = this.#places): Socket | undefined {
    this.#sockets.set(nameOf(socket), socket);
    if (this.#sockets.size <= places) return undefined;
    const [[name, oldest]] = this.#sockets as Iterable<[string, Socket]> as [[string, Socket]];
    this.#sockets.delete(name);
    oldest.destroy();
    return oldest;
  }

  /** It is known now, or gone. */
  leave(socket: Peer): void {
    this.#sockets.delete(nameOf(socket));
  }

  get size(): number {
    return this.#sockets.size;
  }
}

const nameOf = ({ remoteAddress, remotePort }: Peer): string => `${remoteAddress} ${remotePort}`;

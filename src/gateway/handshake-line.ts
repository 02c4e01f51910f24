/**
 * Who waits for a TLS handshake. A handshake costs about as much as a hundred requests, and thousands may be wanted at once
 * (a server died, a network came back): only so many are begun between two turns of the loop in which everybody else is
 * served. The others wait in the order in which they came; nobody is sent away for being one of many, only when there are
 * more than could be served before they give up by themselves.
 */
export interface HandshakeLineOptions<Socket> {
  readonly placesMax: number;
  /** How many are begun in one turn of the loop. */
  readonly perTurnMax: number;
  readonly waitMs: number;
  readonly nowMs: () => number;
  /** Calls back when all others have had their turn. */
  readonly nextTurn: (callback: () => void) => void;
  readonly begin: (socket: Socket) => void;
  /** It has waited for longer than `waitMs`. */
  readonly tooLate: (socket: Socket) => void;
}

export class HandshakeLine<Socket> {
  readonly #options: HandshakeLineOptions<Socket>;
  /** In the order of their coming, and when that was. */
  readonly #waiting = new Map<Socket, number>();
  #begunInTurn = 0;
  #turnIsDue = false;

  constructor(options: HandshakeLineOptions<Socket>) {
    this.#options = options;
  }

  get length(): number {
    return this.#waiting.size;
  }

  /** False: the line is full. */
  enter(socket: Socket): boolean {
    const { placesMax, nowMs } = this.#options;
    if (this.#waiting.size >= placesMax) return false;
    this.#waiting.set(socket, nowMs());
    this.#advance();
    return true;
  }

  /** It is gone. */
  leave(socket: Socket): void {
    this.#waiting.delete(socket);
  }

  #advance(): void {
    const { perTurnMax, waitMs, nowMs, begin, tooLate } = this.#options;
    for (const [socket, sinceMs] of this.#waiting) {
      if (this.#begunInTurn >= perTurnMax) break;
      this.#waiting.delete(socket);
      if (nowMs() - sinceMs > waitMs) {
        tooLate(socket);
        continue;
      }
      this.#begunInTurn += 1;
      begin(socket);
    }
    if (this.#turnIsDue || this.#begunInTurn === 0) return;
    this.#turnIsDue = true;
    this.#options.nextTurn(() => {
      this.#turnIsDue = false;
      this.#begunInTurn = 0;
      this.#advance();
    });
  }
}

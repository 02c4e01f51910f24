/** What a server's process has given to a socket: a little is on its way, the rest waits in the process. */

/**
 * What is on its way to a client at most, beyond one message: both kernels' buffers. Those are as much smaller than real
 * ones as the values here are.
 */
const underWayMax = 4096;
/** From so much on the socket tells when it has nothing left. */
const toldBytes = 16 * 1024;

export interface Outgoing {
  readonly bytes: number;
  /** It leaves the process. */
  readonly leave: () => void;
}

export class SendBuffer {
  /** Until there is room on the way, oldest first. */
  readonly #waiting: Outgoing[] = [];
  #bytes = 0;
  #underWayBytes = 0;
  #tells = false;

  /** That wait. */
  get bytes(): number {
    return this.#bytes;
  }

  give(outgoing: Outgoing): void {
    this.#waiting.push(outgoing);
    this.#bytes += outgoing.bytes;
    if (this.#waiting.length === 1) this.goOn();
    this.#tells ||= this.#bytes > toldBytes;
  }

  /** So much is with the client. Whether there is something that may go on for it. */
  arrived(bytes: number): boolean {
    this.#underWayBytes -= bytes;
    return this.#waiting.length > 0;
  }

  /** There may be room on the way. Whether the socket is to tell that it has nothing left. */
  goOn(): boolean {
    for (let next = this.#next; next !== undefined; next = this.#next) {
      this.#waiting.shift();
      this.#bytes -= next.bytes;
      this.#underWayBytes += next.bytes;
      next.leave();
    }
    const tells = this.#tells && this.#bytes === 0;
    if (tells) this.#tells = false;
    return tells;
  }

  get #next(): Outgoing | undefined {
    const [next] = this.#waiting;
    const fits = this.#underWayBytes === 0 || this.#underWayBytes + (next?.bytes ?? 0) <= underWayMax;
    return fits ? next : undefined;
  }

  /** What waits never leaves. */
  clear(): void {
    this.#waiting.length = 0;
    this.#bytes = 0;
  }
}

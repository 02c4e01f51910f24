/** One end of the way between two threads. Whatever is said in a turn of the loop leaves in one message at its end. */
import { Packer, Unpacker } from './packing.ts';
import type { Packed } from './packing.ts';

/** What is used of a worker, or of the port that a worker has to its parent. */
export interface ThreadPort {
  postMessage(message: Packed, transfer: readonly ArrayBuffer[]): void;
  on(event: 'message', listener: (message: Packed) => void): unknown;
}

export class Line {
  readonly packer = new Packer();
  readonly #port: ThreadPort;
  #scheduled = false;
  #closed = false;

  constructor(port: ThreadPort) {
    this.#port = port;
  }

  /** What has come before waits for it. */
  listen(received: (unpacker: Unpacker) => void): void {
    this.#port.on('message', (message) => {
      if (!this.#closed) received(new Unpacker(message));
    });
  }

  /** What has been packed leaves at the end of this turn. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }

  /** Now: nothing more comes in this turn. */
  flush(): void {
    if (this.#closed || this.packer.empty) return;
    const message = this.packer.take();
    this.#port.postMessage(message, [message.bytes]);
  }

  /** Nothing is sent or received any more. */
  close(): void {
    this.#closed = true;
  }

  readonly #flush = (): void => {
    this.#scheduled = false;
    this.flush();
  };
}

/**
 * What the workloads ask of a store that has keys and values. With callbacks and one write to the socket for all of a
 * turn, so that what another store is measured with costs less than our own client.
 */

/** Called once; with an error where the store refused, or the connection is gone. */
export type Done = (error: Error | undefined) => void;

export interface KeyValueClient {
  /** Whatever was there is replaced. */
  put(key: string, value: string, done: Done): void;
  /** Of a key that has a value. */
  overwrite(key: string, value: string, done: Done): void;
  /** `stale`: from what the server that is asked has. */
  get(key: string, stale: boolean, done: Done): void;
  /** Tells whenever one of the keys has a new value; resolves when all of them are watched. */
  watch(keys: readonly string[], told: (key: string) => void): Promise<void>;
  close(): void;
}

/** The stores that are spoken to this way. */
type KeyValueStore = 'nats' | 'zookeeper';

/** How a server is reached; plain data, since it goes through a pipe. */
export interface KeyValueEndpoint {
  readonly store: KeyValueStore;
  readonly host: string;
  readonly port: number;
  /** PEM; undefined: without TLS. */
  readonly ca: string | undefined;
}

/** Puts what is written in one turn into one write. */
export class Gathered {
  readonly #write: (bytes: Buffer) => void;
  #parts: Buffer[] = [];

  constructor(write: (bytes: Buffer) => void) {
    this.#write = write;
  }

  add(bytes: Buffer): void {
    this.#parts.push(bytes);
    if (this.#parts.length > 1) return;
    setImmediate(() => {
      const parts = this.#parts;
      this.#parts = [];
      this.#write(Buffer.concat(parts));
    });
  }
}

export const whenDone = (start: (done: Done) => void): Promise<void> =>
  new Promise((resolve, reject) => {
    start((error) => {
      if (error === undefined) resolve();
      else reject(error);
    });
  });

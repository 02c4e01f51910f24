/**
 * What the workloads ask of a store that has keys and values. With callbacks and one write to the socket for all of a
 * turn, so that no store is measured by what a comfortable client costs.
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
type KeyValueStore = 'futurestore' | 'nats' | 'zookeeper';

/** How a server is reached; plain data, since it goes through a pipe. */
export interface KeyValueEndpoint {
  readonly store: KeyValueStore;
  readonly host: string;
  readonly port: number;
  /** PEM; undefined: without TLS. */
  readonly ca: string | undefined;
  /** Who the client is, in PEM; absent: nobody asks. */
  readonly identity?: { readonly cert: string; readonly key: string };
}

/** Puts what is written in one turn into one write. */
export class Gathered<Part> {
  readonly #write: (parts: readonly Part[]) => void;
  #parts: Part[] = [];

  constructor(write: (parts: readonly Part[]) => void) {
    this.#write = write;
  }

  add(part: Part): void {
    this.#parts.push(part);
    if (this.#parts.length > 1) return;
    setImmediate(() => {
      const parts = this.#parts;
      this.#parts = [];
      this.#write(parts);
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

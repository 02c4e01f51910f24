/**
 * As much of ZooKeeper's protocol (jute) as the workloads need: its own records are in zookeeper.jute of its source.
 * Keys are children of the root: a slash in them becomes a hyphen.
 */
import { connect, type Socket } from 'node:net';
import { Gathered, whenDone, type Done, type KeyValueClient } from './key-value-client.ts';
import type { KeyValueEndpoint } from './key-value-client.ts';

const operations = { create: 1, exists: 3, getData: 4, setData: 5, sync: 9, ping: 11 };
const noNode = -101;
const nodeExists = -110;
const watchEvent = -1;
const sessionTimeoutMs = 60_000;

const pathOf = (key: string): string => `/${key.replaceAll('/', '-')}`;

/** jute: numbers are big-endian, strings and buffers have their length before them. */
class Record {
  readonly #parts: Buffer[] = [];

  int(value: number): this {
    const bytes = Buffer.allocUnsafe(4);
    bytes.writeInt32BE(value);
    this.#parts.push(bytes);
    return this;
  }

  long(value: bigint): this {
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeBigInt64BE(value);
    this.#parts.push(bytes);
    return this;
  }

  flag(value: boolean): this {
    this.#parts.push(Buffer.from([value ? 1 : 0]));
    return this;
  }

  buffer(value: string | Buffer): this {
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    this.int(bytes.length);
    this.#parts.push(bytes);
    return this;
  }

  /** With the length of the whole before it. */
  frame(): Buffer {
    const body = Buffer.concat(this.#parts);
    const frame = Buffer.allocUnsafe(4 + body.length);
    frame.writeInt32BE(body.length);
    frame.set(body, 4);
    return frame;
  }
}

type Told = (error: number, body: Buffer) => void;

export class ZookeeperClient implements KeyValueClient {
  readonly #socket: Socket;
  readonly #gathered: Gathered<Buffer>;
  readonly #waiting = new Map<number, Told>();
  readonly #watches = new Map<string, () => void>();
  readonly #pings: NodeJS.Timeout;
  #unread: Buffer = Buffer.alloc(0);
  #number = 0;
  #greeted: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#gathered = new Gathered((parts) => socket.write(Buffer.concat(parts)));
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      clearInterval(this.#pings);
      for (const told of this.#waiting.values()) told(connectionLost, Buffer.alloc(0));
      this.#waiting.clear();
    });
    this.#pings = setInterval(() => {
      this.#gathered.add(new Record().int(-2).int(operations.ping).frame());
    }, sessionTimeoutMs / 4);
    this.#pings.unref();
  }

  static async connect({ host, port }: KeyValueEndpoint): Promise<ZookeeperClient> {
    const socket = connect({ host, port, noDelay: true });
    await new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.once('connect', resolve);
    });
    const client = new ZookeeperClient(socket);
    const hello = new Record().int(0).long(0n).int(sessionTimeoutMs).long(0n).buffer(Buffer.alloc(16));
    await new Promise<void>((resolve, reject) => {
      client.#greeted = resolve;
      socket.once('close', () => reject(new Error('ZooKeeper closed the connection')));
      client.#gathered.add(hello.flag(false).frame());
    });
    return client;
  }

  put(key: string, value: string, done: Done): void {
    this.#create(pathOf(key), value, (error) => {
      if (error !== nodeExists) done(problemOf(error, 'create'));
      else this.overwrite(key, value, done);
    });
  }

  /** Of one that exists: half of the work of `put` then. */
  overwrite(key: string, value: string, done: Done): void {
    this.#request(
      operations.setData,
      (record) => record.buffer(pathOf(key)).buffer(value).int(-1),
      (error) => {
        done(problemOf(error, 'setData'));
      },
    );
  }

  /** Not stale: behind a sync on the same connection, which is how its documentation says to read the latest. */
  get(key: string, stale: boolean, done: Done): void {
    const path = pathOf(key);
    if (!stale)
      this.#request(
        operations.sync,
        (record) => record.buffer(path),
        () => {},
      );
    this.#request(
      operations.getData,
      (record) => record.buffer(path).flag(false),
      (error) => {
        done(problemOf(error === noNode ? 0 : error, 'getData'));
      },
    );
  }

  async watch(keys: readonly string[], told: (key: string) => void): Promise<void> {
    await Promise.all(
      keys.map((key) =>
        whenDone((done) => {
          this.#watches.set(pathOf(key), () => told(key));
          this.#request(
            operations.exists,
            (record) => record.buffer(pathOf(key)).flag(true),
            (error) => done(problemOf(error === noNode ? 0 : error, 'exists')),
          );
        }),
      ),
    );
  }

  close(): void {
    this.#socket.destroy();
  }

  #create(path: string, value: string, told: (error: number) => void): void {
    // One entry of the list of who may what: the world, all of it. No flags: it stays.
    const write = (record: Record): Record =>
      record.buffer(path).buffer(value).int(1).int(31).buffer('world').buffer('anyone').int(0);
    this.#request(operations.create, write, told);
  }

  #request(operation: number, write: (record: Record) => Record, told: Told): void {
    this.#number += 1;
    this.#waiting.set(this.#number, told);
    this.#gathered.add(write(new Record().int(this.#number).int(operation)).frame());
  }

  #read(chunk: Buffer): void {
    this.#unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk]);
    while (this.#unread.length >= 4) {
      const end = 4 + this.#unread.readInt32BE(0);
      if (this.#unread.length < end) return;
      const frame = this.#unread.subarray(4, end);
      this.#unread = this.#unread.subarray(end);
      this.#frame(frame);
    }
  }

  #frame(frame: Buffer): void {
    if (this.#greeted !== undefined) {
      this.#greeted();
      this.#greeted = undefined;
      return;
    }
    // Header: the request's number, the transaction's, an error. Then the record.
    const number = frame.readInt32BE(0);
    const body = frame.subarray(16);
    if (number === watchEvent) {
      // Kind of event, state, path.
      const path = body.toString('utf8', 12, 12 + body.readInt32BE(8));
      this.#watches.get(path)?.();
      this.#watches.delete(path);
      return;
    }
    const told = this.#waiting.get(number);
    this.#waiting.delete(number);
    told?.(frame.readInt32BE(12), body);
  }
}

const connectionLost = -4;

const problemOf = (error: number, operation: string): Error | undefined =>
  error === 0 ? undefined : new Error(`ZooKeeper answered ${operation} with error ${error}`);

/**
 * As much of NATS's protocol as the workloads need: its key-value buckets are JetStream streams with one message for each
 * subject. https://docs.nats.io/reference/reference-protocols/nats-protocol and .../nats_api_reference
 */
import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { Gathered, whenDone, type Done, type KeyValueClient } from './key-value-client.ts';
import type { KeyValueEndpoint } from './key-value-client.ts';

const bucket = 'bench';
const stream = `KV_${bucket}`;
const subjectOf = (key: string): string => `$KV.${bucket}.${key}`;

interface Answer {
  /** Of the subscription that it came for. */
  readonly subject: string;
  readonly payload: string;
  /** undefined: it has none. */
  readonly status: string | undefined;
}

export class NatsClient implements KeyValueClient {
  readonly #socket: Socket;
  readonly #gathered: Gathered<Buffer>;
  readonly #inbox = `_INBOX.${Math.random().toString(36).slice(2)}${Math.random().toString(36).slice(2)}`;
  readonly #waiting = new Map<string, (answer: Answer | Error) => void>();
  readonly #watches = new Map<string, (key: string) => void>();
  #unread: Buffer = Buffer.alloc(0);
  #requests = 0;
  #subscriptions = 1;
  #ponged: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#gathered = new Gathered((parts) => socket.write(Buffer.concat(parts)));
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('close', () => {
      for (const told of this.#waiting.values()) told(new Error('the connection to NATS is gone'));
      this.#waiting.clear();
    });
  }

  static async connect({ host, port, ca }: KeyValueEndpoint): Promise<NatsClient> {
    const plain = connectPlain({ host, port, noDelay: true });
    // The server speaks first, and in the clear also where TLS follows.
    await new Promise((resolve, reject) => {
      plain.once('error', reject);
      plain.once('data', resolve);
    });
    const socket =
      ca === undefined ? plain : connectTls({ socket: plain, ca, host, servername: 'localhost' });
    if (socket !== plain) await new Promise((resolve) => socket.once('secureConnect', resolve));
    const client = new NatsClient(socket);
    client.#say('CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}');
    client.#say(`SUB ${client.#inbox}.* 1`);
    await client.#pingPong();
    return client;
  }

  /** The bucket, on three servers; the store that it is needs no more than the last value of each key. */
  async makeBucket(replicas: number): Promise<void> {
    const settings = {
      name: stream,
      subjects: [`$KV.${bucket}.>`],
      retention: 'limits',
      storage: 'file',
      discard: 'new',
      num_replicas: replicas,
      max_msgs_per_subject: 1,
      max_msgs: -1,
      max_bytes: -1,
      max_age: 0,
      allow_direct: true,
      allow_rollup_hdrs: true,
    };
    const answer = await this.#ask(`$JS.API.STREAM.CREATE.${stream}`, JSON.stringify(settings));
    if (answer.includes('"error"')) throw new Error(`NATS made no bucket: ${answer}`);
  }

  put(key: string, value: string, done: Done): void {
    this.#request(subjectOf(key), value, (answer) => {
      if (answer instanceof Error) done(answer);
      else done(answer.payload.includes('"error"') ? new Error(answer.payload) : problemOf(answer));
    });
  }

  overwrite(key: string, value: string, done: Done): void {
    this.put(key, value, done);
  }

  /** Not stale: from the stream's leader, which asks no quorum. */
  get(key: string, stale: boolean, done: Done): void {
    const [subject, payload] = stale
      ? [`$JS.API.DIRECT.GET.${stream}.${subjectOf(key)}`, '']
      : [`$JS.API.STREAM.MSG.GET.${stream}`, JSON.stringify({ last_by_subj: subjectOf(key) })];
    this.#request(subject, payload, (answer) => {
      done(answer instanceof Error ? answer : problemOf(answer));
    });
  }

  async watch(keys: readonly string[], told: (key: string) => void): Promise<void> {
    await Promise.all(
      keys.map(async (key) => {
        this.#subscriptions += 1;
        const id = `${this.#subscriptions}`;
        const deliver = `${this.#inbox}w.${id}`;
        this.#watches.set(id, () => told(key));
        this.#say(`SUB ${deliver} ${id}`);
        const config = {
          deliver_subject: deliver,
          deliver_policy: 'last_per_subject',
          ack_policy: 'none',
          filter_subject: subjectOf(key),
          num_replicas: 1,
          mem_storage: true,
        };
        const request = JSON.stringify({ stream_name: stream, config });
        const answer = await this.#ask(`$JS.API.CONSUMER.CREATE.${stream}`, request);
        if (answer.includes('"error"')) throw new Error(`NATS made no consumer: ${answer}`);
      }),
    );
  }

  close(): void {
    this.#socket.destroy();
  }

  async #ask(subject: string, payload: string): Promise<string> {
    let text = '';
    await whenDone((done) => {
      this.#request(subject, payload, (answer) => {
        if (!(answer instanceof Error)) text = answer.payload;
        done(answer instanceof Error ? answer : problemOf(answer));
      });
    });
    return text;
  }

  #request(subject: string, payload: string, told: (answer: Answer | Error) => void): void {
    this.#requests += 1;
    const reply = `${this.#inbox}.${this.#requests}`;
    this.#waiting.set(reply, told);
    this.#gathered.add(
      Buffer.from(`PUB ${subject} ${reply} ${Buffer.byteLength(payload)}\r\n${payload}\r\n`, 'latin1'),
    );
  }

  #say(line: string): void {
    this.#gathered.add(Buffer.from(`${line}\r\n`));
  }

  #pingPong(): Promise<void> {
    return new Promise((resolve) => {
      this.#ponged = resolve;
      this.#say('PING');
    });
  }

  #read(chunk: Buffer): void {
    this.#unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk]);
    for (;;) {
      const end = this.#unread.indexOf('\r\n');
      if (end < 0) return;
      const words = this.#unread.toString('latin1', 0, end).split(' ');
      const [kind] = words;
      if (kind !== 'MSG' && kind !== 'HMSG') {
        this.#unread = this.#unread.subarray(end + 2);
        if (kind === 'PING') this.#say('PONG');
        if (kind === 'PONG') this.#ponged?.();
        continue;
      }
      const bytes = Number(words.at(-1));
      const wholeEnd = end + 2 + bytes + 2;
      if (this.#unread.length < wholeEnd) return;
      const headerBytes = kind === 'HMSG' ? Number(words.at(-2)) : 0;
      const body = this.#unread.subarray(end + 2, wholeEnd - 2);
      this.#unread = this.#unread.subarray(wholeEnd);
      this.#message(words[1] ?? '', words[2] ?? '', body, headerBytes);
    }
  }

  #message(subject: string, subscription: string, body: Buffer, headerBytes: number): void {
    const watched = this.#watches.get(subscription);
    if (watched !== undefined) {
      watched(subject);
      return;
    }
    const told = this.#waiting.get(subject);
    if (told === undefined) return;
    this.#waiting.delete(subject);
    // 'NATS/1.0 503' where nobody serves the subject.
    const status = /^NATS\/1\.0 (\d+)/.exec(body.toString('latin1', 0, headerBytes))?.[1];
    told({ subject, payload: body.toString('utf8', headerBytes), status });
  }
}

const problemOf = ({ status, subject }: Answer): Error | undefined =>
  status === undefined ? undefined : new Error(`NATS answered ${subject} with status ${status}`);

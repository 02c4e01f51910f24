/**
 * A connection that follows one key many times over and only counts what it is told: the shipped codec over a WebSocket.
 * It costs about what the client of etcd beside it costs, which knows of nothing but its messages either.
 */
import type { SecureContext } from 'node:tls';
import { connect as connectTls } from 'node:tls';
import { WebSocket } from 'ws';
import { protobufCodec, type Request } from '../../src/protocol/index.ts';

export interface FollowerOptions {
  /** wss://host:port */
  readonly endpoint: string;
  /** With a client's certificate. */
  readonly context: SecureContext;
  readonly key: string;
  readonly subscriptions: number;
  /** For each change of each subscription. */
  readonly told: () => void;
}

export class Follower {
  /** Resolves when all of its subscriptions are live. */
  readonly ready: Promise<void>;

  constructor({ endpoint, context, key, subscriptions, told }: FollowerOptions) {
    const { hostname: host, port } = new URL(endpoint);
    const ws = new WebSocket(endpoint, [protobufCodec.subprotocol], {
      createConnection: () =>
        connectTls({ host, port: Number(port), servername: '', secureContext: context }),
      perMessageDeflate: false,
    });
    const requests = Array.from({ length: subscriptions }, (_, index): Request => ({
      id: index + 1,
      body: { kind: 'subscribe', patterns: [key], start: { kind: 'only_new' } },
    }));
    const hello = { clientName: 'follower', clientVersion: '1' };
    let following = 0;
    this.ready = new Promise((resolve, reject) => {
      ws.on('error', reject);
      ws.on('close', (code, reason) => reject(new Error(`closed with ${code} ${reason.toString()}`)));
      ws.on('open', () => ws.send(protobufCodec.encodeClientFrame({ hello, requests }), { binary: true }));
      ws.on('message', (data) => {
        if (!Buffer.isBuffer(data)) return;
        const { answers, pushes } = protobufCodec.decodeServerFrame(data);
        for (const { body } of answers) {
          if (body.kind !== 'subscribed') reject(new Error(`a subscription was answered with ${body.kind}`));
          following += 1;
          if (following === subscriptions) resolve();
        }
        for (const { changes } of pushes) for (let change = 0; change < changes.length; change += 1) told();
      });
    });
  }
}

/** A whole server behind a gateway, with very many connections that have no sockets below them: for what each costs. */
import type { RawData } from 'ws';
import {
  createGatewayBehind,
  type LocalGateway,
  type AgentStream,
  type AgentWebSocket,
  type Arrival,
  type Identity,
} from '../../src/gateway/index.ts';
import { protobufCodec, type ReceivedServerFrame, type Request } from '../../src/protocol/index.ts';
import { compilePolicies } from '../../src/scopes/index.ts';
import type { Gateway, GatewayEvent, GatewayPort } from '../../src/server/index.ts';
import { hello } from './harness.ts';

/** A socket that takes everything at once and keeps nothing but how many answers and pushes came. */
class EmptySocket implements AgentWebSocket, AgentStream {
  readonly bufferedAmount = 0;
  readonly #taken: (frame: ReceivedServerFrame) => void;
  #message: ((data: RawData, isBinary: boolean) => void) | undefined;

  constructor(taken: (frame: ReceivedServerFrame) => void) {
    this.#taken = taken;
  }

  on(event: string, listener: (...parameters: never[]) => void): this {
    if (event === 'message') this.#message = listener as (data: RawData, isBinary: boolean) => void;
    return this;
  }

  off(): this {
    return this;
  }

  send(data: Uint8Array): void {
    this.#taken(protobufCodec.decodeServerFrame(data));
  }

  says(requests: readonly Request[], greets = false): void {
    const bytes = protobufCodec.encodeClientFrame(greets ? { hello, requests } : { requests });
    this.#message?.(Buffer.from(bytes), true);
  }

  ping(): void {}
  pause(): void {}
  resume(): void {}
  close(): void {}
  terminate(): void {}
}

const policies = compilePolicies({
  realms: { agents: {} },
  policies: { agent: [{ allow: ['*'], on: '**' }] },
  bindings: [{ realm: 'agents', policies: ['agent'] }],
});

/** All of one principal's: what an identity costs is not what is measured here. */
const identity: Identity = {
  principal: { realm: 'agents', name: 'one' },
  credential: { realm: 'agents', name: 'one' },
  expiresAtMs: Number.MAX_SAFE_INTEGER,
  proof: {},
};

export class ManyConnections {
  readonly #gateway: LocalGateway;
  readonly #sockets: EmptySocket[] = [];
  #arrived: ((arrival: Arrival) => void) | undefined;
  /** Of all connections. */
  answers = 0;
  failures = 0;
  pushes = 0;

  /** `attach` as a server's `attachGateway`. */
  constructor(attach: (gateway: Gateway) => GatewayPort) {
    const made: { gateway?: LocalGateway } = {};
    const port = attach({
      get connections() {
        return made.gateway?.connections ?? 0;
      },
      deliver: (events: readonly GatewayEvent[]) => made.gateway?.deliver(events),
    });
    this.#gateway = createGatewayBehind(
      (_setup, arrived) => {
        this.#arrived = arrived;
        return {
          judge: { version: 1, judgeAgain: () => ({ ok: true, identity }) },
          replaceRealms: () => Promise.resolve(),
          replaceCertificate: () => undefined,
          replaceTicketKeys: () => undefined,
          look: () => Promise.resolve(),
          listen: () => Promise.resolve({ port: 0 }),
          stopAccepting: () => undefined,
          close: () => Promise.resolve(),
        };
      },
      {
        policies,
        port,
        limits: { connectionsPerPrincipalMax: Infinity },
        clock: { nowMs: () => 0, wallMs: () => 0, every: () => () => undefined },
      },
    );
    made.gateway = this.#gateway;
  }

  get connections(): number {
    return this.#gateway.connections;
  }

  connect(count: number): void {
    for (let made = 0; made < count; made += 1) {
      const socket = new EmptySocket((frame) => this.#count(frame));
      this.#arrived?.({
        ws: socket,
        socket,
        codec: protobufCodec,
        remote: undefined,
        level: 1,
        identity,
        identify: undefined,
      });
      socket.says([], true);
      this.#sockets.push(socket);
    }
  }

  /** The connection's requests in one frame. */
  ask(connection: number, requests: readonly Request[]): void {
    this.#sockets[connection]?.says(requests);
  }

  #count({ answers, pushes }: ReceivedServerFrame): void {
    this.answers += answers.length;
    this.pushes += pushes.length;
    for (const { body } of answers) if (body.kind === 'failed') this.failures += 1;
  }
}

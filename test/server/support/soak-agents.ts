/** The agents of the soak test: each knows what it may be answered, and tells the world when it is not. */
import { expect } from 'vitest';
import type { AnswerBody } from '../../../src/protocol/index.ts';
import type { GatewayEvent } from '../../../src/server/index.ts';
import { resolveOperation, type Agent, type ServerCluster } from './server-cluster.ts';

/** Whoever waits for longer connects anew. */
const patienceMs = 2500;

/** What agents and operator see of the world that they are in. */
export interface Surroundings {
  readonly cluster: ServerCluster;
  readonly nowMs: number;
  /** The servers that run. */
  readonly up: readonly number[];
  isUp(id: number): boolean;
  /** How often it has been started; -1: it does not run. */
  runOf(id: number): number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  pick<T>(from: readonly T[]): T | undefined;
  check(holds: boolean, problem: () => string): void;
}

const valueOf = (bytes: Uint8Array | undefined): number =>
  Number(
    Buffer.from(bytes ?? [])
      .toString()
      .split(' ')[0],
  );

/** What one register may be, from all that was asked and answered so far. */
export class Register {
  readonly key: string;
  /** The last write that was sent, and that was answered. */
  sent = 0;
  acknowledged = 0;
  /** The greatest that any finished read has given. */
  seen = 0;

  constructor(number: number) {
    this.key = `registers/${number}`;
  }
}

interface Request {
  readonly sentMs: number;
  readonly answered: (body: AnswerBody) => void;
}

/** A connection that is replaced when its server dies or says nothing for too long. */
export abstract class Client {
  readonly #world: Surroundings;
  #agent: Agent | undefined;
  server = 0;
  protected readonly waiting = new Map<number, Request>();

  constructor(world: Surroundings) {
    this.#world = world;
  }

  protected get world(): Surroundings {
    return this.#world;
  }

  protected abstract connected(): void;
  protected pushed(_event: GatewayEvent): void {}

  protected send(request: Parameters<Agent['send']>[0], answered: (body: AnswerBody) => void): void {
    const agent = this.#agent;
    if (agent === undefined) return;
    const id = agent.send(request);
    this.waiting.set(id, { sentMs: this.#world.nowMs, answered });
  }

  protected reconnect(): void {
    if (this.#agent !== undefined && this.#world.isUp(this.server)) {
      // An agent that vanishes is noticed late or never.
      if (this.#world.random() < 0.7) this.#agent.close();
    }
    this.#agent = undefined;
    this.waiting.clear();
    const up = this.#world.up;
    const server = up[Math.floor(this.#world.random() * up.length)];
    if (server === undefined) return;
    this.server = server;
    const agent = this.#world.cluster.agent(server, this.session);
    const take = agent.received.bind(agent);
    agent.received = (event) => {
      take(event);
      if (this.#agent !== agent) return;
      if (event.kind === 'answer') {
        const request = this.waiting.get(event.request);
        this.waiting.delete(event.request);
        request?.answered(event.body);
      } else this.pushed(event);
    };
    this.#agent = agent;
    this.#connectedRun = this.#world.runOf(server);
    this.connected();
  }
  #connectedRun = 0;

  protected session = '0'.repeat(32);

  step(): void {
    const gone = this.#agent === undefined || this.#connectedRun !== this.#world.runOf(this.server);
    if (gone || this.isStuck()) this.reconnect();
  }

  protected isStuck(): boolean {
    for (const { sentMs } of this.waiting.values()) if (this.#world.nowMs - sentMs > patienceMs) return true;
    return false;
  }
}

export class Writer extends Client {
  readonly register: Register;
  /** Sent and not answered, in order. */
  readonly #open: number[] = [];

  constructor(world: Surroundings, number: number) {
    super(world);
    this.register = new Register(number);
    this.session = String(number).padStart(32, 'f');
  }

  protected connected(): void {
    this.send(
      {
        kind: 'session_open',
        session: this.session,
        principal: 'agents:test',
        graceMs: 3_600_000,
        resume: false,
        subject: {
          principal: { realm: 'agents', name: 'test' },
          credential: { realm: 'agents', name: 'test' },
        },
      },
      (body) => expect(body).toEqual({ kind: 'session_opened' }),
    );
    for (const number of this.#open) this.#write(number);
  }

  write(): void {
    if (this.#open.length >= 20) return;
    const { register } = this;
    register.sent += 1;
    this.#open.push(register.sent);
    this.#write(register.sent);
  }

  #write(number: number): void {
    const { register, session } = this;
    const filler = 'x'.repeat(Math.floor(this.world.random() * 400));
    this.send(
      {
        kind: 'write',
        session,
        principal: 'agents:test',
        sequence: number,
        answeredBelow: this.#open[0] ?? number,
        operations: [resolveOperation(register.key, `${number} ${filler}`, { supersede: true })],
      },
      (body) => {
        this.world.check(
          body.kind === 'written' && body.result.results[0]?.generation === number,
          () => `write ${number} of ${register.key} was answered ${JSON.stringify(body)}`,
        );
        register.acknowledged = Math.max(register.acknowledged, number);
        this.#open.splice(this.#open.indexOf(number), 1);
      },
    );
  }

  get done(): boolean {
    return this.#open.length === 0;
  }
}

export class Reader extends Client {
  protected connected(): void {}

  read(register: Register): void {
    const least = Math.max(register.acknowledged, register.seen);
    this.send({ kind: 'get', key: register.key, stale: false }, (body) => {
      const value = body.kind === 'got' ? valueOf(body.future?.value) : -1;
      this.world.check(
        value >= least && value <= register.sent,
        () => `a read of ${register.key} gave ${value}, at least ${least} was there when it began`,
      );
      register.seen = Math.max(register.seen, value);
    });
  }

  get done(): boolean {
    return this.waiting.size === 0;
  }
}

interface Wait {
  readonly register: Register;
  readonly generation: number;
}

export class Waiter extends Client {
  readonly #registers: readonly Register[];
  readonly #open: Wait[] = [];
  answered = 0;

  constructor(world: Surroundings, registers: readonly Register[]) {
    super(world);
    this.#registers = registers;
  }

  protected connected(): void {
    for (const wait of this.#open) this.#await(wait);
  }

  /** Of one that is not written yet, mostly. */
  add(register: Register): void {
    if (this.#open.length >= 10) return;
    const wait = { register, generation: register.sent + 1 + Math.floor(this.world.random() * 3) };
    this.#open.push(wait);
    this.#await(wait);
  }

  #await(wait: Wait): void {
    this.send(
      { kind: 'await', alternatives: [[wait.register.key]], leastGeneration: wait.generation },
      (body) => {
        this.world.check(
          body.kind === 'awaited' && (body.futures[0]?.generation ?? 0) >= wait.generation,
          () => `an await of generation ${wait.generation} was answered ${JSON.stringify(body)}`,
        );
        this.answered += 1;
        this.#open.splice(this.#open.indexOf(wait), 1);
      },
    );
  }

  /** Awaits may last: only once the value is there for long is it stuck. */
  protected override isStuck(): boolean {
    return false;
  }

  /** How far each register must be written so that all awaits end. */
  get wanted(): ReadonlyMap<Register, number> {
    const wanted = new Map<Register, number>();
    for (const register of this.#registers) wanted.set(register, 0);
    for (const { register, generation } of this.#open)
      wanted.set(register, Math.max(wanted.get(register) ?? 0, generation));
    return wanted;
  }

  get done(): boolean {
    return this.#open.length === 0;
  }
}

export class Subscriber extends Client {
  revision = 0;
  readonly last = new Map<string, number>();
  #clusterId = '';

  protected connected(): void {
    const start =
      this.revision === 0
        ? ({ kind: 'present_state' } as const)
        : ({
            kind: 'after',
            position: { clusterId: this.#clusterId, epoch: 1, revision: this.revision },
          } as const);
    this.send({ kind: 'subscribe', patterns: ['registers/**'], start }, (body) => {
      this.world.check(
        body.kind === 'subscribed' && !body.reset,
        () => `a subscription from ${this.revision} was answered ${JSON.stringify(body)}`,
      );
      if (body.kind === 'subscribed') this.#clusterId = body.position.clusterId;
    });
  }

  protected override pushed(event: GatewayEvent): void {
    if (event.kind === 'ended') return this.reconnect();
    if (event.kind !== 'push') return;
    let revision = this.revision;
    for (const { change } of event.changes) {
      this.world.check(
        change.revision > this.revision && change.revision >= revision && change.revision <= event.revision,
        () => `change ${change.revision} came after ${revision} in a push up to ${event.revision}`,
      );
      revision = change.revision;
      if (change.kind !== 'future') continue;
      const value = valueOf(change.future.value);
      const before = this.last.get(change.key) ?? 0;
      this.world.check(value > before, () => `${change.key} became ${value} after ${before}`);
      this.last.set(change.key, value);
    }
    this.world.check(event.revision >= this.revision, () => `a push went back to ${event.revision}`);
    this.revision = event.revision;
  }
}

/** An agent: a process with a real client that writes, reads, waits and follows, and writes down what it was told. */
import {
  Client,
  CancelledError,
  FutureRejectedError,
  FuturestoreError,
  resolveOperation,
  TimedOutError,
  type AwaitOptions,
  type Future,
  type RequestOptions,
} from '../client/index.ts';
import { jsonCodec, protobufCodec } from '../protocol/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import { AgentOperations } from './agent-operations.ts';
import { AgentSubscriptions } from './agent-subscriptions.ts';
import { historyOf, seenOf, writtenOf, type Recorded } from './agent-records.ts';
import { agentRealm, nameOf } from './agent-policies.ts';
import { clientEnvironment } from './client-environment.ts';
import type { AnswerChecks, FeedChecks, HistoryWrite, StateChecks } from './checks/index.ts';
import { Life, type VirtualTime } from './clock.ts';
import type { AgentPlan, Plan } from './plan.ts';
import type { Random } from './random.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export interface AgentWorld {
  readonly plan: Plan;
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly operations: Counts;
  readonly network: AgentNetwork;
  readonly endpoints: readonly string[];
  readonly random: (name: string) => Random;
  readonly history: Recorded[];
  readonly answers: AnswerChecks;
  readonly feed: FeedChecks;
  readonly state: StateChecks;
  readonly fail: (check: string, problem: string) => void;
  /** Runs a check; what it throws becomes the run's failure. */
  readonly judge: (check: () => void) => void;
  /** Whether there was another process with its certificate. */
  readonly copied: (agent: number) => boolean;
}

export interface OpenAwait {
  readonly keys: readonly string[];
  readonly sinceMs: number;
}

/** Codes that say that something is wrong with client or server, not with what was asked. */
const neverCodes = new Set([
  'INTERNAL',
  'PROTOCOL_ERROR',
  'INVALID_ARGUMENT',
  'UNAUTHENTICATED',
  'PERMISSION_DENIED',
  'VERSION_NOT_SUPPORTED',
  'DATA_DAMAGED',
]);

/** The outcome is the cluster's word on the request itself: it did not happen. */
const decidedCodes = new Set([
  'ALREADY_SETTLED',
  'PRECONDITION_FAILED',
  'NOT_FOUND',
  'NO_VALUE',
  'LIMIT_EXCEEDED',
]);

/** Where there is no client to ask. */
const askAgainMs = 200;

const openedAtOnce = { opened: (): void => undefined, lost: (): void => undefined };

const describeCall = ({ agent, what }: { readonly agent: number; readonly what: string }): string =>
  `agent ${agent} ${what}`;

export class Agent {
  readonly plan: AgentPlan;
  readonly #world: AgentWorld;
  readonly #random: Random;
  #life: Life | undefined;
  #client: Client | undefined;
  #inFlight = 0;
  #closing = false;
  /** Nothing new is begun any more. */
  quiet = false;
  /** How often it was told that it is revoked. */
  shutOuts = 0;
  readonly awaits = new Set<OpenAwait>();
  readonly #operations: AgentOperations;
  readonly #subscriptions: AgentSubscriptions;

  constructor(plan: AgentPlan, world: AgentWorld) {
    this.plan = plan;
    this.#world = world;
    this.#random = world.random(`agent/${plan.id}`);
    this.#operations = new AgentOperations(plan.id, this.#random, world.plan.valueBytesMax);
    this.#subscriptions = new AgentSubscriptions(this, world, this.#random);
  }

  get id(): number {
    return this.plan.id;
  }

  /** How often it was started. */
  get lives(): number {
    return this.#operations.lives;
  }

  get life(): Life | undefined {
    return this.#life;
  }

  get closing(): boolean {
    return this.#closing;
  }

  /** Without awaits, which may last. */
  get inFlight(): number {
    return this.#inFlight;
  }

  get client(): Client | undefined {
    return this.#client;
  }

  start(): void {
    if (this.#life !== undefined) return;
    const world = this.#world;
    const life = new Life(`agent ${this.id}`);
    this.#life = life;
    this.#operations.lives += 1;
    const { timeoutMs, sessionGraceMs } = this.plan;
    const client = new Client(
      {
        endpoints: world.endpoints,
        name: `agent-${this.id}`,
        sessionGraceMs,
        connectTimeoutMs: 3000,
        ...(timeoutMs !== undefined && { timeoutMs }),
        // Others see a connection by its session.
        ...(world.plan.soleConnections === true && { session: openedAtOnce }),
        onStateChange: (state) => {
          if (state.kind === 'closed' && this.#life === life && !this.#closing)
            this.#shutOut(life, state.error);
        },
      },
      clientEnvironment(
        world.network,
        this.id,
        life,
        this.#random,
        this.plan.json === true ? jsonCodec : protobufCodec,
      ),
    );
    this.#client = client;
    for (let count = 0; count < this.plan.subscriptions; count += 1) this.#subscriptions.begin(life, client);
    this.#think(life);
  }

  /** The cluster wants it no more. Its process ends, and tries again later: it may have been restored. */
  #shutOut(life: Life, error: FuturestoreError): void {
    const world = this.#world;
    const isReplaced = world.copied(this.id) && error.message.includes('another process took over');
    const isRevoked = world.state.access.wasRevoked(this.#principal) && error.message.includes('revoked');
    if (!isRevoked && !isReplaced) {
      world.fail('client', `agent ${this.id} was shut out: ${error.message}`);
      return;
    }
    world.operations.add(isReplaced ? 'agent replaced' : 'agent shut out');
    if (isRevoked) this.shutOuts += 1;
    world.time.after(this.#random.whole(300, 2000), world.time.world, 'input', () => {
      if (this.#life !== life || this.#closing) return;
      this.kill(false);
      this.start();
    });
  }

  get #principal(): { readonly realm: string; readonly name: string } {
    return { realm: agentRealm, name: nameOf(this.id) };
  }

  /** It follows from policies, from revocations, or from a copy that took its place. */
  refused(error: unknown): boolean {
    if (!(error instanceof FuturestoreError)) return false;
    const { access } = this.#world.state;
    if (error.code === 'CONNECTION_CLOSED') return this.#world.copied(this.id);
    if (error.code === 'PERMISSION_DENIED') return access.wasRestricted(this.#principal);
    return error.code === 'UNAUTHENTICATED' && access.wasRevoked(this.#principal);
  }

  /** The process dies. Its requests may have happened. */
  /** false: it does not run. */
  kill(silent: boolean): boolean {
    const life = this.#life;
    if (life === undefined) return false;
    this.#world.trace.say(`agent ${this.id} is killed`);
    life.alive = false;
    life.held = undefined;
    this.#life = undefined;
    this.#client = undefined;
    this.#closing = false;
    this.#inFlight = 0;
    this.awaits.clear();
    this.#subscriptions.end();
    this.#world.network.agentGone(this.id, silent);
    return true;
  }

  /** Ends in good order, and is gone then. false: it does so already, or does not run. */
  close(): boolean {
    const life = this.#life;
    const client = this.#client;
    if (life === undefined || client === undefined || this.#closing) return false;
    this.#world.trace.say(`agent ${this.id} closes its client`);
    this.#closing = true;
    this.#subscriptions.end();
    client.close().then(
      () => {
        if (this.#life === life) this.kill(false);
      },
      (error: unknown) => this.#world.fail('client', `agent ${this.id} could not close: ${String(error)}`),
    );
    return true;
  }

  #think(life: Life): void {
    const pauseMs = this.#random.exponential(this.plan.thinkMs);
    this.#world.time.after(Math.ceil(pauseMs), life, 'timer', () => {
      const mayAct = !this.quiet && !this.#closing && this.#inFlight < this.plan.concurrency;
      if (this.#client !== undefined && mayAct) {
        this.#act(life, this.#client);
      }
      this.#think(life);
    });
  }

  #act(life: Life, client: Client): void {
    const { writes, reads, lists, awaits, batches, statuses } = this.plan;
    let at = this.#random.next() * (writes + reads + lists + awaits + batches + statuses);
    if ((at -= writes) < 0) this.#write(life, client);
    else if ((at -= reads) < 0) this.#get(life, client, this.#key());
    else if ((at -= lists) < 0) this.#list(life, client);
    else if ((at -= awaits) < 0) this.#await(life, client);
    else if ((at -= batches) < 0) this.#batch(life, client);
    else this.#status(life, client);
  }

  #key(): string {
    return `k/${this.#random.whole(1, this.#world.plan.keys)}`;
  }

  /** Some have a time of their own. */
  #options(life: Life): RequestOptions {
    const timeout = this.#random.chance(0.2) ? { timeoutMs: this.#random.whole(50, 4000) } : {};
    return { ...timeout, ...this.#signal(life) };
  }

  /** Some are given up by who asked. */
  #signal(life: Life): { readonly signal?: AbortSignal } {
    if (!this.#random.chance(0.04)) return {};
    const controller = new AbortController();
    this.#world.time.after(this.#random.whole(1, 300), life, 'timer', () => controller.abort());
    return { signal: controller.signal };
  }

  #call(what: string): void {
    this.#world.trace.note(describeCall, { agent: this.id, what });
  }

  /** Follows a request to its end; nothing of a dead process counts. */
  #follow<Result>(
    life: Life,
    kind: string,
    request: Promise<Result>,
    answered: (result: Result) => void,
    failed: (error: FuturestoreError) => void,
  ): void {
    const world = this.#world;
    this.#inFlight += 1;
    world.operations.add(kind);
    request.then(
      (result) => {
        if (!life.alive) return;
        this.#inFlight -= 1;
        world.judge(() => answered(result));
      },
      (error: unknown) => {
        if (!life.alive) return;
        this.#inFlight -= 1;
        if (!(error instanceof FuturestoreError)) {
          world.fail('client', `agent ${this.id}: ${kind} failed with ${String(error)}`);
          return;
        }
        this.#note(kind, error);
        world.judge(() => failed(error));
      },
    );
  }

  #note(kind: string, error: FuturestoreError): void {
    this.#world.operations.add(`${kind}: ${error.code}`);
    this.#call(`${kind} failed: ${error.code} ${error.message}`);
    // It says up to where it has all answers: none that it still waits for may be forgotten.
    const isForgotten = error.code === 'OUTCOME_UNKNOWN' && error.message.includes('was forgotten');
    if ((neverCodes.has(error.code) && !this.refused(error)) || isForgotten) {
      this.#world.fail('client', `agent ${this.id}: ${kind} failed with ${error.code}: ${error.message}`);
    }
  }

  // ---- writes ----

  #write(life: Life, client: Client, operation = this.#operations.operation(this.#key())): void {
    const { key, kind } = operation;
    const record: Extract<Recorded, { kind: HistoryWrite['kind'] }> = {
      client: this.id,
      kind,
      key,
      input: historyOf(operation),
      output: 'unknown',
      callMs: this.#world.time.nowMs,
    };
    this.#world.history.push(record);
    this.#call(`asks ${kind} ${key}`);
    this.#follow(
      life,
      kind,
      client.batch([operation], this.#options(life)),
      ({ results: [result] }) => {
        if (result === undefined) throw new Error('a write without a result');
        record.returnMs = this.#world.time.nowMs;
        record.output = writtenOf(result);
        this.#operations.saw(key, result);
        this.#call(
          `was answered ${kind} ${key}: generation ${result.generation} ${result.state} @${result.revision}`,
        );
      },
      (error) => {
        record.returnMs = this.#world.time.nowMs;
        this.#writeFailed(record, error);
      },
    );
  }

  /** What surely did not happen says so; the rest stays unknown. */
  #writeFailed(record: { output: unknown; returnMs?: number | undefined }, error: FuturestoreError): void {
    // What is refused may have happened before: then it was another connection's answer that was lost.
    const byPolicy = error.code === 'LIMIT_EXCEEDED' && this.#world.state.access.active;
    const sure =
      (decidedCodes.has(error.code) && !byPolicy) ||
      ((error instanceof TimedOutError || error instanceof CancelledError) && !error.mayHaveHappened);
    if (sure) record.output = { error: error.code };
    else record.returnMs = undefined;
  }

  #batch(life: Life, client: Client): void {
    const keys = new Set<string>();
    const count = this.#random.whole(2, 4);
    for (let tries = 0; keys.size < count && tries < 20; tries += 1) keys.add(this.#key());
    const operations = [...keys].map((key) => this.#operations.operation(key));
    const [first] = operations;
    if (first === undefined) return;
    if (operations.length === 1) return this.#write(life, client, first);
    const record: Extract<Recorded, { kind: 'batch' }> = {
      client: this.id,
      kind: 'batch',
      input: operations.map(historyOf),
      output: 'unknown',
      callMs: this.#world.time.nowMs,
    };
    this.#world.history.push(record);
    this.#call(`asks batch ${operations.map(({ kind, key }) => `${kind} ${key}`).join(', ')}`);
    this.#follow(
      life,
      'batch',
      client.batch(operations, this.#options(life)),
      ({ results }) => {
        record.returnMs = this.#world.time.nowMs;
        record.output = results.map(writtenOf);
        this.#call(`was answered batch @${results.map(({ revision }) => revision).join(', ')}`);
      },
      (error) => {
        record.returnMs = this.#world.time.nowMs;
        this.#writeFailed(record, error);
      },
    );
  }

  // ---- reads ----

  #shown(future: Future, askedAtMs: number, where: string): void {
    const { answers } = this.#world;
    const seen = seenOf(future);
    const what = `${where} of agent ${this.id}`;
    answers.shown(future.key, seen, what);
    answers.fresh(future.key, seen, askedAtMs);
    this.#operations.saw(future.key, future);
  }

  #get(life: Life, client: Client, key: string): void {
    const world = this.#world;
    const stale = this.#random.chance(0.1);
    const askedAtMs = world.state.timeMs;
    const record: Extract<Recorded, { kind: 'get' }> = {
      client: this.id,
      kind: 'get',
      key,
      output: 'unknown',
      callMs: world.time.nowMs,
    };
    if (!stale) world.history.push(record);
    this.#call(`asks get ${key}${stale ? ' (stale)' : ''}`);
    this.#follow(
      life,
      stale ? 'stale get' : 'get',
      client.get(key, { stale, ...this.#options(life) }),
      (future) => {
        record.returnMs = world.time.nowMs;
        record.output = seenOf(future);
        this.#call(`was answered get ${key}: ${future?.state ?? 'absent'} @${future?.revision ?? 0}`);
        if (future !== undefined) this.#shown(future, stale ? -Infinity : askedAtMs, 'a get');
      },
      () => undefined,
    );
  }

  #list(life: Life, client: Client): void {
    const askedAtMs = this.#world.state.timeMs;
    const values = this.#random.chance(0.5);
    this.#call('asks list');
    this.#follow(
      life,
      'list',
      client.list('k/**', { limit: this.#random.whole(1, 20), values, ...this.#options(life) }),
      ({ futures }) => {
        for (const future of futures) {
          if (values || future.state !== 'resolved') this.#shown(future, askedAtMs, 'a list');
        }
      },
      () => undefined,
    );
  }

  #status(life: Life, client: Client): void {
    this.#follow(
      life,
      'status',
      client.status(this.#options(life)),
      () => undefined,
      () => undefined,
    );
  }

  #await(life: Life, client: Client): void {
    const world = this.#world;
    if (this.awaits.size >= 8) return;
    const random = this.#random;
    const keys = random.chance(0.7) ? [this.#key()] : [...new Set([this.#key(), this.#key()])];
    const known = this.#operations.generationOf(keys[0] ?? '');
    const options: AwaitOptions = {
      ...(known !== undefined && random.chance(0.4) && { leastGeneration: known + random.whole(0, 2) }),
      ...(random.chance(0.3) && { timeoutMs: random.whole(100, 10_000) }),
      ...this.#signal(life),
    };
    const open: OpenAwait = { keys, sinceMs: world.time.nowMs };
    this.awaits.add(open);
    const askedAtMs = world.state.timeMs;
    const { nowMs } = world.time;
    this.#call(
      `awaits ${keys.join(', ')}${options.leastGeneration ? ` from ${options.leastGeneration} on` : ''}`,
    );
    const anyOf = random.chance(0.3);
    const request = anyOf
      ? client.await({ anyOf: keys }, options).then(({ futures }) => futures)
      : client.await(keys, options);
    this.#follow(
      life,
      'await',
      request,
      (futures) => {
        this.#inFlight += 1;
        this.awaits.delete(open);
        for (const future of futures) {
          this.#shown(future, askedAtMs, 'an await');
          if (future.state !== 'resolved') throw new Error(`an await gave ${future.key} as ${future.state}`);
          if (future.generation < (options.leastGeneration ?? 0)) {
            world.fail('awaits', `an await gave generation ${future.generation} of ${future.key}, too early`);
          }
        }
        this.#awaited(futures, nowMs);
      },
      (error) => {
        this.#inFlight += 1;
        this.awaits.delete(open);
        if (error instanceof FutureRejectedError || this.refused(error)) return;
        const limited = options.timeoutMs !== undefined || this.plan.timeoutMs !== undefined;
        // Without any connection in its time it is told so.
        if (limited && (error instanceof TimedOutError || error.code === 'UNAVAILABLE')) return;
        if (options.signal !== undefined && error instanceof CancelledError) return;
        if (error.code !== 'CONNECTION_CLOSED') {
          world.fail('awaits', `an await of ${keys.join(', ')} ended with ${error.code}: ${error.message}`);
        }
      },
    );
    // Awaits are counted by themselves.
    this.#inFlight -= 1;
  }

  /** What an await shows of one key is what a get could have shown in its time. */
  #awaited(futures: readonly Future[], callMs: number): void {
    const [future] = futures;
    if (future === undefined || futures.length !== 1) return;
    this.#world.history.push({
      client: this.id,
      kind: 'get',
      key: future.key,
      output: seenOf(future),
      callMs,
      returnMs: this.#world.time.nowMs,
    });
  }

  // ---- the end ----

  /** Any settled outcome ends what waits for these keys. */
  settle(keys: readonly string[]): void {
    const client = this.#client;
    const life = this.#life;
    if (client === undefined || life === undefined) return;
    for (const key of keys) {
      this.#write(life, client, resolveOperation(key, this.#operations.value(), { supersede: true }));
    }
  }

  /** Asks for something that must be answered. */
  ask(served: () => void): void {
    const client = this.#client;
    const again = (): void => this.ask(served);
    if (client === undefined || client.state.kind === 'closed') {
      this.#world.time.after(askAgainMs, this.#world.time.world, 'input', again);
      return;
    }
    const value = this.#operations.value();
    this.#world.operations.add('last question');
    client.resolve(`last/${this.id}`, value, { supersede: true }).then(() => {
      client.get(`last/${this.id}`).then((future) => {
        const found = Buffer.from(future?.value ?? []).toString();
        if (found === value) served();
        else
          this.#world.fail('every client is served', `agent ${this.id} wrote "${value}" and read "${found}"`);
      }, again);
    }, again);
  }
}

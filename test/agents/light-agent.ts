/** An agent that costs little: three awaits beside its subscription. */
import type { SecureContext } from 'node:tls';
import type { AnswerBody, RequestBody } from '../../src/protocol/index.ts';
import { LightClient } from '../support/light-client.ts';
import type { PushedChange, Question } from '../support/light-client.ts';
import type { Turnstile } from '../support/turnstile.ts';
import { AgentRecord } from './agent-record.ts';
import type { FleetAgent } from './fleet-agent.ts';
import { patternOf, waitsOf } from './plan.ts';
import type { PlannedAgent } from './plan.ts';

export interface LightAgentOptions {
  readonly ports: readonly number[];
  readonly localAddress: string;
  readonly turnstile: Turnstile;
}

export class LightAgent implements FleetAgent {
  readonly plan: PlannedAgent;
  readonly record: AgentRecord;
  readonly #client: LightClient;
  readonly #unanswered = new Set<string>();

  constructor(plan: PlannedAgent, context: SecureContext, options: LightAgentOptions) {
    this.plan = plan;
    const record = new AgentRecord(plan.name);
    this.record = record;
    const server = plan.index % options.ports.length;
    this.#client = new LightClient(
      { ...options, name: plan.name, pattern: patternOf(plan), context, server },
      {
        questions: () => this.#questions(),
        changed: (change) => {
          this.#changed(change);
        },
        subscriptionEnded: (code) => {
          record.subscriptionEnd = code;
        },
        closed: (code) => {
          record.ended(code);
        },
        problem: (text) => {
          record.problem(text);
        },
      },
    );
  }

  get servedAtMs(): number | undefined {
    return this.#client.servedAtMs;
  }

  get shutOut(): boolean {
    return this.#client.shutOut;
  }

  get server(): number | undefined {
    return this.#client.server;
  }

  start(): void {
    this.#client.start();
  }

  beginRound(round: number): void {
    this.record.beginRound(round);
    this.#unanswered.clear();
    for (const key of waitsOf(this.plan)) this.#unanswered.add(key);
    if (this.#client.server !== undefined) this.#client.ask(this.#questions());
  }

  /** Reads nothing more, whatever comes. */
  sleep(): void {
    this.#client.pause();
  }

  wake(): void {
    this.#client.resume();
  }

  /** Only while it is served. */
  ask(body: RequestBody): Promise<AnswerBody> {
    return new Promise((resolve) => {
      this.#client.ask([{ body, answer: resolve }]);
    });
  }

  stop(): void {
    this.#client.stop();
  }

  #questions(): Question[] {
    return [...this.#unanswered].map((key) => this.#await(key));
  }

  #await(key: string): Question {
    return {
      body: { kind: 'await', alternatives: [[key]], leastGeneration: this.record.round },
      answer: (body) => {
        this.#awaited(key, body);
      },
    };
  }

  #awaited(key: string, body: AnswerBody): void {
    if (body.kind === 'awaited') {
      const [future, ...more] = body.futures;
      if (future === undefined || more.length > 0 || future.key !== key)
        this.record.problem(`the await of ${key} was answered with something else`);
      else this.record.answer(future);
    } else if (body.kind !== 'failed') {
      this.record.problem(`the await of ${key} was answered with ${body.kind}`);
    } else if (body.failure.code === 'UNAVAILABLE') {
      this.#client.ask([this.#await(key)]);
      return;
    } else {
      this.record.refused.set(key, body.failure.code);
    }
    this.#unanswered.delete(key);
  }

  #changed(change: PushedChange): void {
    if (change.kind === 'future') this.record.push(change.future);
    else this.record.problem(`${change.key} was deleted, by nobody`);
  }
}

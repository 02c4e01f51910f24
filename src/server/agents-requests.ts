/**
 * What operators ask of servers' agents, at the server that was asked: it passes orders on to the servers that they are
 * about, over the links between servers, and carries out those that are about itself. Orders may be lost and come twice, so
 * each can be carried out again without harm.
 */
import type { AgentsOrder, AgentsOutcome, NumberedOrder, NumberedOutcome } from '../peers/index.ts';
import type { AnswerBody, ErrorCode, ServerShare } from '../protocol/index.ts';
import { departureGraceMs, type Drain } from './drain.ts';
import type { Environment } from './environment.ts';
import type { Membership } from './membership.ts';
import type { Outgoing } from './outgoing.ts';
import type { GatewayRequest } from './port.ts';
import { planMoves, type Load } from './rebalance.ts';
import type { InFlight } from './requests.ts';
import type { PeerStatuses } from './status.ts';

type DrainRequest = Extract<GatewayRequest, { readonly kind: 'drain_server' }>;
type RebalanceRequest = Extract<GatewayRequest, { readonly kind: 'rebalance' }>;

/** The first version of the peer protocol whose servers take such orders. */
const peerVersionLeast = 5;

/** An order is given up after so many election timeouts; handing leadership over may take one of them. */
const patience = 4;

export interface AgentsRequestsOptions {
  readonly self: number;
  readonly drain: Drain;
  readonly membership: Membership;
  readonly statuses: PeerStatuses;
  readonly outgoing: Outgoing;
  /** How many agents are connected here. */
  readonly agents: () => number;
  readonly environment: Environment;
  readonly electionTimeoutMs: number;
  readonly answer: (inFlight: InFlight, body: AnswerBody) => void;
}

type Result = { readonly outcome: AgentsOutcome } | { readonly code: ErrorCode; readonly message: string };

interface Asked {
  readonly id: number;
  readonly member: number;
  readonly order: AgentsOrder;
  readonly done: (result: Result) => void;
  readonly untilMs: number;
  againMs: number;
}

/** So many of a peer are known again: it has one or two under way. */
const takenMax = 16;

/** The last orders of a peer in one of its runs, by their numbers, which grow; undefined: it is being carried out. */
interface Taken {
  readonly run: number;
  readonly outcomes: Map<number, AgentsOutcome | undefined>;
}

const failed = (code: ErrorCode, message: string): AnswerBody => ({
  kind: 'failed',
  failure: { code, message },
});

export class AgentsRequests {
  readonly #options: AgentsRequestsOptions;
  #lastId = 0;
  #asked: Asked[] = [];
  readonly #taken = new Map<number, Taken>();

  constructor(options: AgentsRequestsOptions) {
    this.#options = options;
  }

  request(inFlight: InFlight, request: DrainRequest | RebalanceRequest): void {
    if (request.kind === 'rebalance') this.#rebalance(inFlight, request);
    else this.#drain(inFlight, request);
  }

  #drain(inFlight: InFlight, { member, graceMs, end }: DrainRequest): void {
    const { membership, answer } = this.#options;
    if (!membership.directory.current.some(({ id }) => id === member)) {
      answer(inFlight, failed('DRAIN_REFUSED', `there is no member ${member}: see the list of members`));
      return;
    }
    const drain: AgentsOrder = { kind: 'drain', ...(graceMs !== undefined && { graceMs }) };
    this.#order(member, end ? { kind: 'admit' } : drain, (result) => {
      if ('code' in result) return answer(inFlight, failed(result.code, result.message));
      const { agents, graceMs: grace, leader } = result.outcome;
      const standing = { member, draining: !end, agents, graceMs: grace, leader };
      answer(inFlight, { kind: 'drained', standing });
    });
  }

  #rebalance(inFlight: InFlight, request: RebalanceRequest): void {
    const { answer } = this.#options;
    const loads = this.#loads();
    const outdated = loads.find(({ member }) => this.#isOutdated(member));
    if (outdated !== undefined)
      return answer(inFlight, failed('DRAIN_REFUSED', this.#outdatedText(outdated.member)));
    const plan = planMoves(loads);
    const count = [...plan.values()].flat().reduce((sum, { agents }) => sum + agents, 0);
    const graceMs = request.graceMs ?? departureGraceMs(count);
    const moving = new Map<number, number>();
    let left = plan.size;
    if (left === 0) return answer(inFlight, this.#rebalanced(loads, moving, graceMs));
    for (const [member, moves] of plan) {
      this.#order(member, { kind: 'move', graceMs, moves }, (result) => {
        if ('code' in result) return answer(inFlight, failed(result.code, result.message));
        moving.set(member, result.outcome.agents);
        left -= 1;
        if (left === 0) answer(inFlight, this.#rebalanced(loads, moving, graceMs));
      });
    }
  }

  /** Of those that take agents and were heard lately. */
  #loads(): Load[] {
    const { self, membership, statuses, agents, drain, environment } = this.#options;
    const nowMs = environment.monotonicMs();
    return membership.directory.current.flatMap(({ id, agentsUrl }) => {
      if (id === self) return drain.isOn ? [] : [{ member: id, agents: agents(), endpoint: agentsUrl }];
      const count = statuses.agentsOf(id, nowMs);
      if (count === undefined || statuses.isDraining(id) || !membership.isReachable(id)) return [];
      return [{ member: id, agents: count, endpoint: agentsUrl }];
    });
  }

  #rebalanced(loads: readonly Load[], moving: ReadonlyMap<number, number>, graceMs: number): AnswerBody {
    const servers = [...this.#options.membership.directory.current]
      .sort((a, b) => a.id - b.id)
      .map(({ id, name }): ServerShare => {
        const load = loads.find(({ member }) => member === id);
        return {
          member: id,
          name,
          agents: load?.agents ?? 0,
          moving: moving.get(id) ?? 0,
          leftOut: load === undefined,
        };
      });
    return { kind: 'rebalanced', rebalanced: { servers, graceMs } };
  }

  // ---- orders ----

  #order(member: number, order: AgentsOrder, done: (result: Result) => void): void {
    const { self, drain, membership, environment, electionTimeoutMs } = this.#options;
    if (member === self) return drain.carryOut(order, (outcome) => done(this.#resultOf(member, outcome)));
    if (!membership.isReachable(member)) {
      const message = `${this.#titleOf(member)} is not in touch with the server that was asked: ask another one, or look at why it cannot be reached`;
      return done({ code: 'UNAVAILABLE', message });
    }
    if (this.#isOutdated(member)) return done({ code: 'DRAIN_REFUSED', message: this.#outdatedText(member) });
    this.#lastId += 1;
    const nowMs = environment.monotonicMs();
    const untilMs = nowMs + patience * electionTimeoutMs;
    const asked: Asked = { id: this.#lastId, member, order, done, untilMs, againMs: nowMs };
    this.#asked.push(asked);
    this.#send(asked, nowMs);
  }

  #send(asked: Asked, nowMs: number): void {
    const { outgoing, electionTimeoutMs } = this.#options;
    const { id, member, order } = asked;
    if (outgoing.order(member, { id, order })) asked.againMs = nowMs + electionTimeoutMs;
  }

  tick(nowMs: number): void {
    if (this.#asked.length === 0) return;
    const late = this.#asked.filter(({ untilMs }) => nowMs >= untilMs);
    this.#asked = this.#asked.filter(({ untilMs }) => nowMs < untilMs);
    for (const asked of this.#asked) if (nowMs >= asked.againMs) this.#send(asked, nowMs);
    for (const { member, done } of late) {
      const message = `${this.#titleOf(member)} did not answer within ${patience} election timeouts: ask again, which is harmless`;
      done({ code: 'UNAVAILABLE', message });
    }
  }

  heard(from: number, { id, outcome }: NumberedOutcome): void {
    const asked = this.#asked.find((one) => one.id === id && one.member === from);
    if (asked === undefined) return;
    this.#asked = this.#asked.filter((one) => one !== asked);
    asked.done(this.#resultOf(from, outcome));
  }

  /** A peer passes on what an operator wants of this server. `run`: of the peer; its numbers are of that run. */
  ordered(from: number, run: number, { id, order }: NumberedOrder): void {
    const { drain, outgoing } = this.#options;
    const { outcomes } = this.#takenOf(from, run);
    if (outcomes.has(id)) {
      const outcome = outcomes.get(id);
      if (outcome !== undefined) outgoing.tellOutcome(from, { id, outcome });
      return;
    }
    const [oldest = id] = outcomes.keys();
    // It was carried out and forgotten long ago.
    if (id < oldest) return;
    outcomes.set(id, undefined);
    if (outcomes.size > takenMax) outcomes.delete(oldest);
    drain.carryOut(order, (outcome) => {
      if (outcomes.has(id)) outcomes.set(id, outcome);
      outgoing.tellOutcome(from, { id, outcome });
    });
  }

  #takenOf(from: number, run: number): Taken {
    const before = this.#taken.get(from);
    if (before?.run === run) return before;
    const taken: Taken = { run, outcomes: new Map() };
    this.#taken.set(from, taken);
    return taken;
  }

  // ---- words ----

  #resultOf(member: number, outcome: AgentsOutcome): Result {
    const { refusal } = outcome;
    if (refusal === undefined) return { outcome };
    return { code: 'DRAIN_REFUSED', message: `${this.#titleOf(member)} refuses: ${refusal}` };
  }

  #titleOf(member: number): string {
    const name = this.#options.membership.directory.current.find(({ id }) => id === member)?.name ?? '';
    return name === '' ? `member ${member}` : `${name} (member ${member})`;
  }

  #isOutdated(member: number): boolean {
    const version = this.#options.membership.versionOf(member);
    return member !== this.#options.self && version !== undefined && version < peerVersionLeast;
  }

  #outdatedText(member: number): string {
    return `${this.#titleOf(member)} runs a version that takes no such orders: upgrade all servers first`;
  }
}

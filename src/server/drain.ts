/**
 * A server that is drained: it takes no agents, sends away those that it has, and does not lead. It stays a member that
 * votes. This is a state of the process: nothing of it is in the log or on disk, and a restart ends it.
 *
 * It must never leave the cluster without a leader: it hands over only to one that is not drained, is heard and lacks
 * little, and leads on while there is none; and it campaigns all the same when the others have not brought forth a leader
 * in two election timeouts (raft's `reluctance`), to hand over again as soon as one of them can lead.
 */
import type { AgentsOrder, AgentsOutcome } from '../peers/index.ts';
import type { Raft, SoftState } from '../raft/index.ts';
import type { Environment, Logger } from './environment.ts';
import type { Leadership } from './leadership.ts';
import type { Membership } from './membership.ts';
import type { AgentsDoor } from './port.ts';
import type { PeerStatuses } from './status.ts';

/** Writes wait during a transfer that comes to nothing, for an election timeout: it is tried again after so many. */
const cooldown = 5;

/** A TLS handshake takes 2.7 ms of the server that an agent goes to, and clients leave within the first half of the grace. */
const graceMsMin = 5_000;
const graceMsPerAgent = 10;

/** Over how long so many agents had best leave. */
export const departureGraceMs = (agents: number): number => graceMsMin + agents * graceMsPerAgent;

const nobody: AgentsDoor = {
  drain: () => Promise.resolve(),
  admit: () => Promise.resolve(),
  sendAway: () => Promise.resolve(0),
};

const nowhereToGo =
  'no other server that takes agents is in touch with it, so they would have nowhere to go: start one, or end a drain, first';

/** An order that is no older than this part of an election timeout may have crossed another one. */
const crossingShare = 0.5;

/** And one that is no older than this is not answered yet: the others may be about to say that they are drained, too. */
const hearingShare = 0.25;

/** For so long nobody may take agents before one that is drained does: who is started again is back by then. */
const nobodyMsMax = 30_000;

const drainedAgain = 'another drain was begun while this one was being ended, and counts';

const stopping = 'its process stops, and takes no agents any more';

const endedAgain = 'the drain was ended before it was settled who leads';

export interface DrainOptions {
  readonly self: { readonly id: number };
  readonly agentsDoor?: AgentsDoor;
  readonly raft: Raft;
  readonly soft: () => SoftState;
  readonly leadership: Leadership;
  readonly membership: Membership;
  readonly statuses: PeerStatuses;
  /** How many agents are connected here. */
  readonly agents: () => number;
  readonly environment: Environment;
  readonly logger: Logger;
  readonly electionTimeoutMs: number;
  /** The peers are to hear at once whether this server is drained. */
  readonly announce: () => void;
  /** Runs what comes from outside of a turn; an exception ends the server. */
  readonly guard: (work: () => void) => void;
}

type Done = (outcome: AgentsOutcome) => void;

/** Answered when it is settled who leads. */
interface Asked {
  readonly done: Done;
  /** At the time of the order. */
  readonly agents: number;
  readonly fromMs: number;
  readonly untilMs: number;
}

export class Drain {
  readonly #options: DrainOptions;
  readonly #door: AgentsDoor;
  /** undefined: not drained. */
  #graceMs: number | undefined;
  /** How often a drain was begun: one that begins while another is being ended is the one that counts. */
  #begun = 0;
  #begunAtMs = -Infinity;
  /** Others that were drained when it was. */
  #drainedBefore: readonly number[] = [];
  /** The process ends: it takes agents no more, whatever the others do. */
  #stops = false;
  /** Since when no other server takes agents; undefined: one does, or is not to be missed. */
  #aloneSinceMs: number | undefined;
  #asked: Asked[] = [];
  #handsOverUntilMs = -Infinity;
  /** What is asked of the door goes one after the other, and never from within a call of a gateway. */
  #doorWork = Promise.resolve();

  constructor(options: DrainOptions) {
    this.#options = options;
    this.#door = options.agentsDoor ?? nobody;
  }

  get isOn(): boolean {
    return this.#graceMs !== undefined;
  }

  /**
   * `done` is called once, later or at once. An order that is given again changes nothing but the time for leaving, and
   * not even that where the process stops.
   */
  carryOut(order: AgentsOrder, done: Done): void {
    switch (order.kind) {
      case 'drain': {
        const refusal = this.isOn || this.#hasAnother() ? undefined : nowhereToGo;
        if (refusal !== undefined) return done(this.#outcome(refusal));
        const { environment, electionTimeoutMs } = this.#options;
        const agents = this.#options.agents();
        const nowMs = environment.monotonicMs();
        if (!this.isOn) {
          this.#begunAtMs = nowMs;
          this.#drainedBefore = this.#drainedOthers();
        }
        // A stop has its own grace, and is taken for hung when it takes longer.
        if (!this.#stops)
          this.#begin(order.graceMs ?? departureGraceMs(agents)).catch((error: unknown) => {
            this.#options.logger.error({ err: error }, 'agents cannot be sent away');
          });
        const fromMs = nowMs + hearingShare * electionTimeoutMs;
        this.#asked.push({ done, agents, fromMs, untilMs: nowMs + electionTimeoutMs });
        return;
      }
      case 'admit':
        if (this.#stops) return done(this.#outcome(stopping));
        this.#end(done);
        return;
      case 'move':
        if (this.isOn) return done(this.#outcome('it is drained: all of its agents are to leave'));
        this.#sendAway(order, done);
        return;
      default:
        order satisfies never;
    }
  }

  /** For a stop: whatever becomes of the agents. Resolves when none is left. */
  begin(graceMs: number): Promise<void> {
    this.#stops = true;
    return this.#begin(graceMs);
  }

  /** Resolves when no agent is left, or the drain has been ended. */
  #begin(graceMs: number): Promise<void> {
    const { raft, environment, announce, logger } = this.#options;
    this.#graceMs = graceMs;
    this.#begun += 1;
    raft.step({ kind: 'reluctance', reluctant: true });
    this.#handsOverUntilMs = -Infinity;
    this.#handOver(environment.monotonicMs());
    announce();
    logger.info({ agents: this.#options.agents(), graceMs }, 'this server takes no agents any more');
    // Not waited for by what comes next: a drain may be ended before all have left.
    return new Promise((resolve, reject) => {
      this.#atDoor(() => {
        this.#door.drain(graceMs).then(resolve, reject);
        return Promise.resolve();
      });
    });
  }

  tick(nowMs: number): void {
    if (!this.isOn) return;
    this.#takeBackIfLast(nowMs);
    this.#handOver(nowMs);
    this.#answer(nowMs);
  }

  roleChanged(): void {
    this.#answer(this.#options.environment.monotonicMs());
  }

  /** Whether agents have somewhere to go. */
  #hasAnother(): boolean {
    const { membership, statuses, environment } = this.#options;
    const nowMs = environment.monotonicMs();
    return membership.others.some(
      (id) =>
        membership.isReachable(id) && statuses.agentsOf(id, nowMs) !== undefined && !statuses.isDraining(id),
    );
  }

  /**
   * Agents must have somewhere to go. Orders to the last two servers that take agents may cross, and the last one may be
   * lost after the others were drained. Then the drained one with the lowest id takes agents again, and the next ones
   * should it not. One that knows no leader could not serve them.
   */
  #takeBackIfLast(nowMs: number): void {
    const { self, soft, logger, electionTimeoutMs } = this.#options;
    if (this.#stops || soft().leader === undefined || this.#hasAnother()) {
      this.#aloneSinceMs = undefined;
      return;
    }
    this.#aloneSinceMs ??= nowMs;
    const drained = this.#drainedOthers();
    const since = drained.filter((id) => !this.#drainedBefore.includes(id));
    const isRecent = nowMs < this.#begunAtMs + crossingShare * electionTimeoutMs;
    const crossed = isRecent && since.length > 0 && since.every((id) => id > self.id);
    const before = drained.filter((id) => id < self.id).length;
    if (!crossed && nowMs - this.#aloneSinceMs < (1 + before) * nobodyMsMax) return;
    this.#aloneSinceMs = nowMs;
    this.#begunAtMs = -Infinity;
    logger.warn({ drained }, 'no other server takes agents: the drain of this one is ended');
    this.#refuse(nowhereToGo);
    this.#end(() => {});
  }

  /** Those who have asked for a drain and were not answered yet. */
  #refuse(refusal: string): void {
    const asked = this.#asked;
    this.#asked = [];
    for (const { done } of asked) done(this.#outcome(refusal));
  }

  #drainedOthers(): readonly number[] {
    const { membership, statuses } = this.#options;
    return membership.others.filter((id) => membership.isReachable(id) && statuses.isDraining(id));
  }

  #handOver(nowMs: number): void {
    const { leadership, electionTimeoutMs } = this.#options;
    if (nowMs < this.#handsOverUntilMs + (cooldown - 1) * electionTimeoutMs) return;
    if (leadership.giveAway()) this.#handsOverUntilMs = nowMs + electionTimeoutMs;
  }

  #answer(nowMs: number): void {
    if (this.#asked.length === 0) return;
    const { role, leader } = this.#options.soft();
    const isHandingOver = role === 'leader' && nowMs < this.#handsOverUntilMs;
    const settled = role === 'leader' ? !isHandingOver : leader !== undefined;
    this.#asked = this.#asked.filter(({ done, agents, fromMs, untilMs }) => {
      if (nowMs < fromMs || (!settled && nowMs < untilMs)) return true;
      done({ ...this.#outcome(undefined), agents });
      return false;
    });
  }

  #end(done: Done): void {
    if (!this.isOn) return done(this.#outcome(undefined));
    const { logger, guard } = this.#options;
    const begun = this.#begun;
    this.#atDoor(async () => {
      try {
        await this.#door.admit();
      } catch (error) {
        logger.error({ err: error }, 'agents cannot be taken again');
        const why = error instanceof Error ? error.message : String(error);
        const refusal = `it cannot listen for agents again, and stays drained: ${why}`;
        return guard(() => done(this.#outcome(refusal)));
      }
      // The drain that was begun meanwhile is next at the door.
      if (this.#begun !== begun) guard(() => done(this.#outcome(drainedAgain)));
      else guard(() => this.#ended(done));
    });
  }

  #ended(done: Done): void {
    const { raft, announce, logger } = this.#options;
    this.#graceMs = undefined;
    raft.step({ kind: 'reluctance', reluctant: false });
    announce();
    logger.info({}, 'this server takes agents again');
    // No tick will look at them any more.
    this.#refuse(endedAgain);
    done(this.#outcome(undefined));
  }

  #sendAway({ moves, graceMs }: Extract<AgentsOrder, { kind: 'move' }>, done: Done): void {
    const { logger, guard } = this.#options;
    this.#atDoor(async () => {
      const agents = await this.#door.sendAway(moves, graceMs);
      logger.info({ agents, graceMs }, 'agents are asked to go to servers that have fewer');
      guard(() => done({ ...this.#outcome(undefined), agents, graceMs }));
    });
  }

  #atDoor(work: () => Promise<void>): void {
    this.#doorWork = this.#doorWork.then(work).catch((error: unknown) => {
      this.#options.logger.error({ err: error }, 'the gateways do not do what they are asked');
    });
  }

  #outcome(refusal: string | undefined): AgentsOutcome {
    const { agents, soft } = this.#options;
    return { refusal, agents: agents(), graceMs: this.#graceMs ?? 0, leader: soft().leader };
  }
}

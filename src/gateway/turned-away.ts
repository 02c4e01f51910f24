/** Who is not let in, and why: counted, and logged as far as it is no attack on the log. Of all sockets of one gateway. */
import { LogBudget } from '../protocol/index.ts';
import type {
  GatewayClock,
  GatewayLimits,
  GatewayLogger,
  GatewayMetrics,
  TurnedAwayStage,
} from './settings.ts';

/** Of one whose identity, or what its principal may have, is why. */
export interface IdentityTurnedAway {
  readonly stage: TurnedAwayStage;
  /** 'realm:name', as far as it was proved; undefined: nobody's. */
  readonly principal: string | undefined;
  readonly problem: string;
  readonly remote: string | undefined;
  /** Of the WebSocket's close, or HTTP's status. */
  readonly code: number;
  readonly connection?: number;
}

export interface TurnedAwayOptions {
  readonly clock: GatewayClock;
  readonly limits: GatewayLimits;
  readonly logger: GatewayLogger;
  readonly metrics: GatewayMetrics;
}

export class TurnedAway {
  readonly #options: TurnedAwayOptions;
  readonly #budget: LogBudget;

  constructor(options: TurnedAwayOptions) {
    this.#options = options;
    this.#budget = new LogBudget(options.limits.turnedAwayLinesPerSecondMax);
  }

  /** For no fault of anybody's identity. */
  socket(stage: TurnedAwayStage, problem: string, remote: string | undefined): void {
    const suppressed = this.#count(stage);
    if (suppressed === undefined) return;
    this.#options.logger.info({ stage, problem, remote, ...suppressed }, 'a socket was turned away');
  }

  identity({ stage, principal = 'nobody', problem, remote, code, connection }: IdentityTurnedAway): void {
    const suppressed = this.#count(stage);
    if (suppressed === undefined) return;
    this.#options.logger.warn(
      {
        audit: 'turned_away',
        ...(connection !== undefined && { connection }),
        principal,
        stage,
        problem,
        remote,
        code,
        ...suppressed,
      },
      'an agent was turned away',
    );
  }

  /** undefined: there is to be no line. */
  #count(stage: TurnedAwayStage): { readonly suppressed?: number } | undefined {
    this.#options.metrics.turnedAway(stage);
    if (!this.#budget.admits(this.#options.clock.nowMs())) return undefined;
    const suppressed = this.#budget.takeSuppressed();
    return suppressed > 0 ? { suppressed } : {};
  }
}

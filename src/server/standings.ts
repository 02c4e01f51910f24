/** What gateways are told of their server, and when: at a tick where it is not what they were told. */
import type { Store } from '../store/index.ts';
import type { Environment } from './environment.ts';
import type { ServerIdentity, ServerStanding } from './port.ts';

export interface StandingsOptions {
  readonly environment: Environment;
  readonly store: () => Store;
  readonly identity: () => ServerIdentity;
  readonly leaderlessSinceMs: () => number | undefined;
}

/** As it was told last. */
interface Told {
  readonly revision: number;
  readonly epoch: number;
  readonly endpoints: readonly string[];
  readonly leaderlessSinceMs: number | undefined;
}

export class Standings {
  readonly #options: StandingsOptions;
  #told: Told | undefined;

  constructor(options: StandingsOptions) {
    this.#options = options;
  }

  now(): ServerStanding {
    const { environment, store, identity, leaderlessSinceMs } = this.#options;
    const sinceMs = leaderlessSinceMs();
    return {
      identity: identity(),
      revision: store().revision,
      leaderlessMs: sinceMs === undefined ? 0 : environment.monotonicMs() - sinceMs,
    };
  }

  /** Undefined: nothing is different from what was taken last. */
  takeChanged(): ServerStanding | undefined {
    const standing = this.now();
    const { revision, identity } = standing;
    const { epoch, endpoints } = identity;
    const leaderlessSinceMs = this.#options.leaderlessSinceMs();
    const told = this.#told;
    if (
      told?.revision === revision &&
      told.epoch === epoch &&
      told.leaderlessSinceMs === leaderlessSinceMs &&
      told.endpoints.length === endpoints.length &&
      told.endpoints.every((url, index) => url === endpoints[index])
    )
      return undefined;
    this.#told = { revision, epoch, endpoints, leaderlessSinceMs };
    return standing;
  }
}

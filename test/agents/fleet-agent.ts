import type { AgentRecord } from './agent-record.ts';
import type { PlannedAgent } from './plan.ts';

/** An agent as its fleet drives it. */
export interface FleetAgent {
  readonly plan: PlannedAgent;
  readonly record: AgentRecord;
  /** Since when it is connected and its subscription has all that there is; undefined: it is not. */
  readonly servedAtMs: number | undefined;
  /** It was told not to come back. */
  readonly shutOut: boolean;
  /** Which server serves it, as an index of the ports; undefined: none, or not known. */
  readonly server: number | undefined;
  start(): void;
  /** From now on it awaits the round's values. */
  beginRound(round: number): void;
  stop(): void;
}

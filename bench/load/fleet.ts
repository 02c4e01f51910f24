/** Agents of one process, each with a certificate, a principal and a subscription of its own. */
import type { Credentials } from '../../src/cli/authority/certificates.ts';
import type { PlannedAgent } from '../../test/agents/plan.ts';

export interface FleetOptions {
  readonly agents: number;
  /** Of the servers, in their order: 'wss://127.0.0.1:7421'. Agents are on them in turn. */
  readonly endpoints: readonly string[];
  /** PEM: of the servers. */
  readonly ca: string;
  /** Signs the agents' certificates. */
  readonly authority: Credentials;
  /** Connections that may be on their way at the same time. */
  readonly handshakesAtOnce: number;
  /** That will come. */
  readonly changes: number;
}

/** One that is told changes, of whichever store. */
export interface Fleet {
  /** Makes the agents and their certificates. */
  prepare(): Promise<void>;
  /** Connects all of them; resolves when all are served. */
  connect(): Promise<void>;
  /** How many different changes have been told. */
  told(): Promise<number>;
  /** By each change's number, how long after its scheduled time it was told, in milliseconds; NaN: never. */
  toldAfterMs(): Promise<Float64Array>;
}

/** What an agent may see begins with it. */
export const scopeOf = ({ name }: PlannedAgent): string => `nodes/${name}/`;

/** Each change has a key of its own, so that none replaces another before it is told. */
export const changeKey = (agent: PlannedAgent, number: number): string => `${scopeOf(agent)}in/${number}`;

/** What load generators are asked for and what they tell. */

export interface LoadShape {
  readonly connections: number;
  /** Requests that each connection has under way. */
  readonly outstanding: number;
  readonly seconds: number;
}

export interface LoadResult {
  readonly operations: number;
  readonly seconds: number;
  readonly latenciesMs: readonly number[];
  /** Processor seconds of what made the load. */
  readonly generatorSeconds: number;
}

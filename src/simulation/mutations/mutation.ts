export interface Mutation {
  readonly name: string;
  /** In words: what the code does no longer. */
  readonly rule: string;
  /** Below src. */
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
  /** Found within a few seeds: part of the short form. */
  readonly quick?: true;
}

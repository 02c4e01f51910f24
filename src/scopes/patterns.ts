/** Keys and patterns: the grammar, and what a pattern matches, contains and shares with another. */

export type Segment =
  | { readonly kind: 'literal'; readonly text: string }
  /** `*`: exactly one segment. */
  | { readonly kind: 'one' }
  /** A last `**`: one or more segments. */
  | { readonly kind: 'rest' }
  /** `${name}`: exactly one segment, bound before use. Only in policies. */
  | { readonly kind: 'variable'; readonly name: string };

export interface Pattern {
  readonly text: string;
  readonly segments: readonly Segment[];
  /** The longest string that all matching keys start with (whole leading literal segments, each with its '/'). */
  readonly literalPrefix: string;
  /** Without wildcards: a key. */
  readonly exact: boolean;
}

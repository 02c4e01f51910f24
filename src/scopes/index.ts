/**
 * Scopes: which keys there can be, which of them a pattern names, and what a principal may do with them.
 *
 * Owns the grammar of keys and patterns, the trie that routes changes to patterns, the policy document and what it
 * compiles to, and which credentials a revocation means. Calls no other room and no library: no I/O, no clock, no
 * state but what is passed in. Promises that nothing is normalised (a text is a key or it is refused), that binding a
 * variable never widens a pattern, and that a principal may do only what a policy allows and none denies.
 */
export * from './canonical-json.ts';
export * from './document.ts';
export * from './durations.ts';
export * from './expectations.ts';
export * from './key-walks.ts';
export * from './patterns.ts';
export * from './policies.ts';
export * from './policy-changes.ts';
export * from './read-rights.ts';
export * from './revocations.ts';
export * from './scope.ts';
export * from './segment-trie.ts';
export * from './sizes.ts';
export * from './variable-sources.ts';

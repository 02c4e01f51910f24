/** What is asked of compiled policies. */
import type { KeyVerb, PolicyDocument, Verb } from './document.ts';
import type { Pattern } from './patterns.ts';

export interface Principal {
  readonly realm: string;
  readonly name: string;
  /** The values of the realm's variables, except of those that are the name ('cn' or 'dns'). */
  readonly variables?: Readonly<Record<string, string>>;
}

/** Infinity: the policies set no limit. */
export interface ScopeLimits {
  readonly pending: number;
  readonly keys: number;
  readonly subscriptions: number;
  readonly requestsInFlight: number;
  readonly requestsPerSecond: number;
  readonly storedBytes: number;
  readonly connections: number;
}

export interface Decision {
  readonly allowed: boolean;
  /** What decided it, in the document's words; absent: nothing allows it. */
  readonly rule?: {
    readonly policy: string;
    /** The rule's place in its policy; the first is 0. */
    readonly index: number;
    readonly effect: 'allow' | 'deny';
    /** As it is written, with its variables; '' where the verb is about the cluster. */
    readonly pattern: string;
  };
}

/** What one principal may do. */
export interface Scope {
  /**
   * Whether some allow matches the key and no deny does. The key must be valid; for a verb of the cluster there is
   * none, so it is not looked at.
   */
  allows(verb: Verb, key: string): boolean;
  /**
   * Whether the whole pattern is allowed: it is contained in the pattern of one single allow, and shares no key with
   * any deny. A pattern that only the union of several allows covers is refused, and so is a text that is no pattern.
   */
  allowsPattern(verb: Verb, pattern: Pattern | string): boolean;
  /**
   * Of a pattern that is allowed: the pattern of an allow that contains it, its variables bound; one without `*` where
   * there is a choice from the left. undefined: there is none.
   */
  allowanceOf(verb: Verb, pattern: Pattern): string | undefined;
  /**
   * The largest value, in bytes, that may be written to the key: the most generous of the allows that match, Infinity
   * where one of them sets no limit, 0 where the key is not allowed.
   */
  valueBytesMax(verb: Verb, key: string): number;
  /**
   * The longest TTL, in milliseconds, that may be given to the key: the most generous of the allows that match,
   * Infinity (no TTL at all, too) where one of them sets no limit, 0 where the key is not allowed.
   */
  ttlMaxMs(verb: Verb, key: string): number;
  /**
   * What its rules say of the verb, variables bound: an allow is left out where one has no value, and a deny counts for all
   * values then. Takes time in proportion to all rules.
   */
  patternsOf(verb: KeyVerb): { readonly allow: readonly Pattern[]; readonly deny: readonly Pattern[] };
  /** How much the principal may have. */
  readonly limits: ScopeLimits;
  /**
   * The decision of `allowsPattern`, for a key of `allows`, and the first rule that makes it. For people: it takes
   * time in proportion to all rules.
   */
  explain(verb: Verb, keyOrPattern: string): Decision;
}

export interface Policies {
  /** Cheap enough for every connection; a scope never changes. */
  scopeFor(principal: Principal): Scope;
  readonly document: PolicyDocument;
}

/** The principal in 'realm:name'; a name may have further colons. undefined: the text is none. */
export function parsePrincipal(text: string): Principal | undefined {
  const colon = text.indexOf(':');
  if (colon < 1 || colon === text.length - 1) return undefined;
  return { realm: text.slice(0, colon), name: text.slice(colon + 1) };
}

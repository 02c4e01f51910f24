/**
 * Among whose keys a server is to look for what a pattern matches. In the order of keys those of `nodes/x/out`, for each
 * x, stand apart, and between them may be thousands that the asker must not know of: by how long it takes it would.
 */
import { isOneRun, parsePattern, type KeyVerb, type Scope } from '../scopes/index.ts';

/** '': in the order of keys there are no others between them, or all of these are allowed, too. */
const withinOf = (verb: KeyVerb, text: string, scope: Scope): string => {
  const asked = parsePattern(text);
  if (!asked.ok || isOneRun(asked.pattern)) return '';
  const parsed = parsePattern(scope.allowanceOf(verb, asked.pattern) ?? '');
  // A deny may be about other keys of the allowed pattern.
  if (!parsed.ok || !scope.allowsPattern(verb, parsed.pattern)) return text;
  return isOneRun(parsed.pattern) ? '' : parsed.pattern.text;
};

/** For the request to the server. */
export const listWithin = (pattern: string, scope: Scope | undefined): { readonly within?: string } => {
  const within = scope === undefined ? '' : withinOf('list', pattern, scope);
  return within === '' ? {} : { within };
};

/** For the request to the server; absent where no pattern has one: thousands of subscriptions are for one run of keys. */
export const subscribeWithin = (
  patterns: readonly string[],
  scope: Scope | undefined,
): { readonly within?: readonly string[] } => {
  if (scope === undefined) return {};
  const within = patterns.map((pattern) => withinOf('subscribe', pattern, scope));
  return within.some((text) => text !== '') ? { within } : {};
};

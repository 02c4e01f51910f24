/** The matrix of agents and keys: who is to get what, by the model of the policies and nothing else. */
import { realm, patternOf, waitsOf } from './plan.ts';
import type { PlannedAgent } from './plan.ts';
import { matches, ModelScope } from './policy-model.ts';
import type { PolicyDocument } from './policy-model.ts';

/** What one agent is to get of all that is published. */
export interface Expectation {
  readonly pushed: ReadonlySet<string>;
  readonly answered: ReadonlySet<string>;
}

/** Keys with their segments, split once for thousands of agents. */
export type SplitKey = readonly [key: string, segments: readonly string[]];

export const splitKeys = (keys: readonly string[]): SplitKey[] => keys.map((key) => [key, key.split('/')]);

export const scopeOf = (document: PolicyDocument, { name, role }: PlannedAgent): ModelScope =>
  new ModelScope(document, { realm, name, variables: { node: name, role } });

/** Looks at every key. */
export const expectationOf = (
  document: PolicyDocument,
  agent: PlannedAgent,
  keys: readonly SplitKey[],
): Expectation => {
  const scope = scopeOf(document, agent);
  const pattern = patternOf(agent).split('/');
  const waits = waitsOf(agent);
  const follows = scope.allowsPattern('subscribe', patternOf(agent));
  const pushed = new Set<string>();
  const answered = new Set<string>();
  for (const [key, segments] of keys) {
    if (follows && matches(pattern, segments) && scope.allows('subscribe', key)) pushed.add(key);
    if (waits.includes(key) && scope.allows('await', key)) answered.add(key);
  }
  return { pushed, answered };
};

/** Rules broken in src/feed: waits and subscriptions. */
import type { Mutation } from '../mutation.ts';

export const feedMutations: readonly Mutation[] = [
  {
    name: 'one-change-skipped-on-resume',
    rule: 'A resumed subscription goes on right behind its position.',
    file: 'feed/subscription.ts',
    find: '? { cursor: position.revision, base: 0, reset: false }',
    replace: '? { cursor: position.revision + 1, base: 0, reset: false }',
    quick: true,
  },
  {
    name: 'what-does-not-fit-is-lost',
    rule: 'A change that finds no room is read again from the cursor.',
    file: 'feed/live.ts',
    find: 'subscription.cursor = revision - 1;',
    replace: 'subscription.cursor = revision;',
  },
  {
    name: 'served-too-early',
    rule: 'A heartbeat tells only what all subscriptions have been served.',
    file: 'feed/feed.ts',
    find: 'return this.behind(gateway, id) ? undefined : this.#subscriptions.revision;',
    replace: 'return this.#subscriptions.revision + 1;',
  },
  {
    name: 'waiter-not-woken',
    rule: 'A change of an awaited key wakes who waits for it.',
    file: 'feed/waits.ts',
    find: 'if (wait.review(source, nowMs) === undefined) this.#route(wait);',
    replace: 'if (wait.review(source, nowMs) === undefined) return;',
    quick: true,
  },
  {
    name: 'await-given-a-passed-value',
    rule: 'An await is answered with what is fresh at that moment.',
    file: 'feed/wait.ts',
    find: 'const future = present === undefined ? undefined : source.fresh(present, nowMs);',
    replace: 'const future = present;',
  },
];

/** Rules broken in src/client: the library of agents. */
import type { Mutation } from '../mutation.ts';

export const clientMutations: readonly Mutation[] = [
  {
    name: 'new-number-for-each-try',
    rule: 'A write that is sent again keeps its sequence number.',
    file: 'client/outbox.ts',
    find: 'if (pending.sequence === 0) {',
    replace: 'if (pending.sequence >= 0) {',
    quick: true,
  },
  {
    name: 'resume-from-the-start',
    rule: 'A subscription goes on from where it stood, not from where it began.',
    file: 'client/subscription.ts',
    find: "position === undefined ? this.#start : { kind: 'after', position };",
    replace: 'position === undefined ? this.#start : this.#start;',
    quick: true,
  },
  {
    name: 'position-behind-what-was-taken',
    rule: 'A resume token leaves out nothing that was not handed out.',
    file: 'client/change-buffer.ts',
    find: 'const revision = first === undefined ? received.revision : first.change.revision - 1;',
    replace: 'const { revision } = received;',
  },
  {
    name: 'sent-again-in-a-new-session',
    rule: 'A write whose session is gone is not sent again: it may have happened.',
    file: 'client/engine.ts',
    find: 'const sent = this.#outbox.unansweredWrites;',
    replace: 'const sent = this.#outbox.unansweredWrites.slice(0, 0);',
  },
  {
    name: 'write-before-its-session',
    rule: 'No write is sent before its session is known to be open.',
    file: 'client/session.ts',
    find: "return this.#state.kind === 'attached';",
    replace: "return this.#state.kind === 'attached' || this.#state.kind === 'opening';",
  },
  {
    name: 'no-way-back',
    rule: 'Who is asked to go by a server that takes it again, and finds no other one, comes back before it is closed.',
    file: 'client/connection-state.ts',
    find: 'if (here === undefined || (attempt + 1)',
    replace: 'if (attempt >= 0 || here === undefined || (attempt + 1)',
  },
];

/** Rules broken about policies and revocations, wherever they stand. */
import type { Mutation } from '../mutation.ts';

export const accessMutations: readonly Mutation[] = [
  {
    name: 'write-not-judged-at-apply',
    rule: 'A write is judged by what is true at its place in the log.',
    file: 'store/access.ts',
    find: 'return writeRefusal(operations, judgement.scope, principal)?.failure;',
    replace: 'return undefined;',
  },
  {
    name: 'judgement-kept-too-long',
    rule: 'What a session may is judged anew when access has changed.',
    file: 'store/access.ts',
    find: 'if (known?.version === this.#version) return known;',
    replace: 'if (known !== undefined) return known;',
  },
  {
    name: 'access-event-after-the-changes',
    rule: 'Gateways are told of access before what came later.',
    file: 'server/gateways.ts',
    find: 'for (const { events } of this.#attached) events.push(event);',
    replace:
      'for (const attached of this.#attached) queueMicrotask(() => { attached.events.push(event); this.#options.schedule(); });',
  },
  {
    name: 'revoked-not-closed',
    rule: 'The connections of who is revoked are closed at once.',
    file: 'gateway/gateway.ts',
    find: '      else connection.revoke();\n    }',
    replace: '    }',
  },
  {
    name: 'revoked-read-on',
    rule: 'What waits in the socket of who is revoked does not leave any more.',
    file: 'gateway/connection.ts',
    find: 'this.#cut(code);',
    replace: 'this.close(code, problem);',
  },
  {
    name: 'withdrawn-read-on',
    rule: 'What waits in a socket and is no longer allowed does not leave any more.',
    file: 'gateway/connection.ts',
    find: 'if (withdrawn && this.#outbox.unsent) this.#cut(1006);',
    replace: 'void withdrawn;',
  },
  {
    name: 'followed-on-when-not-allowed',
    rule: 'What is in flight or followed ends when it is no longer allowed.',
    file: 'gateway/withdrawal.ts',
    find: 'const reads = withdrawReads(from);\n  const subscriptions = withdrawSubscriptions(from);\n  return reads || subscriptions;',
    replace:
      'return withdrawReads === undefined || withdrawSubscriptions === undefined || from === undefined;',
  },
  {
    name: 'access-not-told-after-a-snapshot',
    rule: 'A snapshot may hold other policies, and gateways are told.',
    file: 'server/applied-state.ts',
    find: 'this.#accessChanged();\n    this.#tell.feed.replaceSource(this.#store);',
    replace: 'this.#access = this.#store.access;\n    this.#tell.feed.replaceSource(this.#store);',
  },
  {
    name: 'revocations-not-in-the-snapshot',
    rule: 'Revocations are part of the persisted state.',
    file: 'store/access.ts',
    find: 'for (const key of this.#dirty) revocation(key, this.#records.get(key));',
    replace: '',
  },
];

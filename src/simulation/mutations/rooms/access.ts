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
    file: 'gateway/outbox.ts',
    find: 'return this.#ws.bufferedAmount > 0;',
    replace: 'return false;',
  },
  {
    name: 'closed-read-on',
    rule: 'Nor does it where the connection is being closed in good order already.',
    file: 'gateway/connection.ts',
    find: 'if (unsent) this.#owner.emptying(this);',
    replace: 'void unsent;',
  },
  {
    name: 'withdrawn-read-on',
    rule: 'What waits in a socket and is no longer allowed does not leave any more.',
    file: 'gateway/connection.ts',
    find: 'if (this.#outbox.unsent && scopeBefore !== undefined && readsLess(scopeBefore, scope)) this.#cut(1006);',
    replace: 'void scopeBefore;',
  },
  {
    name: 'followed-on-when-not-allowed',
    rule: 'What is in flight or followed ends when it is no longer allowed.',
    file: 'gateway/withdrawal.ts',
    find: 'withdrawReads(from);\n  withdrawSubscriptions(from);',
    replace: 'void [withdrawReads, withdrawSubscriptions, from];',
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

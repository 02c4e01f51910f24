/** Rules broken in src/gateway: the connections of agents. */
import type { Mutation } from '../mutation.ts';

export const gatewayMutations: readonly Mutation[] = [
  {
    name: 'room-not-given-back',
    rule: 'What a socket has taken makes room for more pushes.',
    file: 'gateway/outbox.ts',
    find: 'this.#owner.pushesTaken(bytes);',
    replace: '',
  },
];

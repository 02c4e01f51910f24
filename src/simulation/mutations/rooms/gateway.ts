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
  {
    name: 'ended-connection-not-told',
    rule: 'The server is told which session a connection that has ended leaves behind.',
    file: 'gateway/connection.ts',
    find: "{ kind: 'closed', connection: this.id, session: this.#requests.sessionToDetach }",
    replace: "{ kind: 'closed', connection: this.id, session: undefined }",
  },
  {
    name: 'answers-forgotten-too-early',
    rule: 'An answer is forgotten only when the client says that it has it.',
    file: 'gateway/requests.ts',
    find: 'sequence, answeredBelow, operations } as const;',
    replace: 'sequence, answeredBelow: Math.max(answeredBelow, sequence), operations } as const;',
  },
  {
    name: 'older-connection-stays',
    rule: 'Where a principal may have one connection, it ends when a newer one is made at another server.',
    file: 'gateway/sole-connections.ts',
    find: 'return standing.session !== session && (newerThan === undefined || standing.session === newerThan);',
    replace: 'return false;',
  },
  {
    name: 'nobody-asked-to-go',
    rule: 'Who has been connected for as long as may be is asked to go before being closed.',
    file: 'gateway/farewells.ts',
    find: 'connection.goaway(this.#graceMs, reason, { here: true });',
    replace: '',
  },
];

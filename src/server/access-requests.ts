/**
 * Requests about policies and revocations, at the server that was asked. What they change goes through the log and
 * takes effect where it stands there, on every server at the same place.
 */
import type { AccessState, Failure } from '../protocol/index.ts';
import type { AccessCommand, Store } from '../store/index.ts';
import type { Membership } from './membership.ts';
import type { GatewayEvent, GatewayRequest } from './port.ts';

export type AccessChangeRequest = Extract<
  GatewayRequest,
  { readonly kind: 'acl_apply' | 'acl_revoke' | 'acl_restore' }
>;

/** The first version of the peer protocol whose servers can apply commands about access. */
const peerVersionLeast = 3;

export interface AccessRequestsOptions {
  readonly membership: Membership;
  readonly store: () => Store;
}

export class AccessRequests {
  readonly #options: AccessRequestsOptions;

  constructor(options: AccessRequestsOptions) {
    this.#options = options;
  }

  /** What is to be put into the log, or why not. */
  check(request: AccessChangeRequest): { readonly command: AccessCommand } | { readonly failure: Failure } {
    const { membership } = this.#options;
    for (const { id, name } of membership.directory.current) {
      const version = membership.versionOf(id);
      if (version === undefined || version >= peerVersionLeast) continue;
      const message = `${name} (member ${id}) runs a version that knows no replicated policies: upgrade all servers first`;
      return { failure: { code: 'ACCESS_REFUSED', message } };
    }
    return { command: commandOf(request) };
  }

  state(): AccessState {
    const access = this.#options.store().access;
    return {
      revision: access?.revision ?? 0,
      document: access?.document ?? new Uint8Array(0),
      revocations: access?.revocations ?? [],
    };
  }

  /** For gateways; undefined: the cluster does not decide over access. */
  event(): Extract<GatewayEvent, { readonly kind: 'access' }> | undefined {
    const store = this.#options.store();
    const { access } = store;
    if (access === undefined) return undefined;
    return {
      kind: 'access',
      revision: store.revision,
      document: access.policies?.document,
      revocations: access.revocations.map(({ revocation }) => revocation),
    };
  }
}

const commandOf = (request: AccessChangeRequest): AccessCommand => {
  switch (request.kind) {
    case 'acl_apply': {
      const { kind, by, document, ifRevision } = request;
      return { kind, by, document, ...(ifRevision !== undefined && { ifRevision }) };
    }
    case 'acl_revoke': {
      const { kind, by, revocation, untilMs } = request;
      return { kind, by, revocation, ...(untilMs !== undefined && { untilMs }) };
    }
    case 'acl_restore': {
      const { kind, by, revocation } = request;
      return { kind, by, revocation };
    }
    default:
      return request satisfies never;
  }
};

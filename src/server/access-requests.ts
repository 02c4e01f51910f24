/**
 * Requests about policies and revocations, at the server that was asked. What they change goes through the log and
 * takes effect where it stands there, on every server at the same place.
 */
import type { AccessState, Failure } from '../protocol/index.ts';
import type { PolicyDocument } from '../scopes/index.ts';
import type { AccessCommand } from '../store/index.ts';
import { accessVersionLeast, memberBehind, type KnownVersionsOptions } from './known-versions.ts';
import type { GatewayEvent, GatewayRequest } from './port.ts';

export type AccessChangeRequest = Extract<
  GatewayRequest,
  { readonly kind: 'acl_apply' | 'acl_revoke' | 'acl_restore' }
>;

/**
 * What a document may have that not all servers know, and the first version of which all do: others would refuse it, each
 * for itself. Where the policies that are applied have it already, who cannot apply them could not be in the cluster.
 */
const documentParts: readonly {
  readonly versionLeast: number;
  readonly has: (document: PolicyDocument) => boolean;
}[] = [
  {
    versionLeast: 5,
    has: ({ policies }) =>
      Object.values(policies).some((rules) => rules.some(({ limit }) => limit?.keys !== undefined)),
  },
  { versionLeast: 7, has: ({ realms }) => Object.values(realms).some(({ tls }) => tls?.identity === 'dns') },
];
/** The first one whose servers know strict quotas. */
const strictQuotasVersionLeast = 6;

export class AccessRequests {
  readonly #options: KnownVersionsOptions;

  constructor(options: KnownVersionsOptions) {
    this.#options = options;
  }

  /** What is to be put into the log, or why not. */
  check(request: AccessChangeRequest): { readonly command: AccessCommand } | { readonly failure: Failure } {
    const behind = memberBehind(this.#options, this.#versionFor(request));
    if (behind !== undefined) return { failure: { code: 'ACCESS_REFUSED', message: behind } };
    return {
      command: commandOf(request, memberBehind(this.#options, strictQuotasVersionLeast) === undefined),
    };
  }

  #versionFor(request: AccessChangeRequest): number {
    if (request.kind !== 'acl_apply') return accessVersionLeast;
    const asked = documentOf(request.document);
    const present = this.#options.store().access?.policies?.document;
    const fresh = documentParts.filter(({ has }) => has(asked) && (present === undefined || !has(present)));
    return Math.max(accessVersionLeast, ...fresh.map(({ versionLeast }) => versionLeast));
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

/** Canonical JSON that has been checked. */
const documentOf = (bytes: Uint8Array): PolicyDocument =>
  JSON.parse(Buffer.from(bytes).toString('utf8')) as PolicyDocument;

const commandOf = (request: AccessChangeRequest, strictQuotas: boolean): AccessCommand => {
  switch (request.kind) {
    case 'acl_apply': {
      const { kind, by, document, ifRevision } = request;
      return {
        kind,
        by,
        document,
        ...(ifRevision !== undefined && { ifRevision }),
        ...(strictQuotas && { strictQuotas }),
      };
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

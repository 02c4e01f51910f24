/**
 * Who may do what, as this gateway knows it: the policy file's policies until the cluster has its own, and the cluster's
 * revocations. What a document must be before the cluster is asked to take it is checked here, too.
 */
import { FuturestoreError, type Failure } from '../protocol/index.ts';
import {
  canonicalJson,
  compilePolicies,
  PolicyError,
  Revocations,
  type Policies,
  type RealmDocument,
} from '../scopes/index.ts';
import type { GatewayEvent } from '../server/index.ts';
import { Realms, type Identity } from './identity.ts';
import { checkPolicyDocument } from './policy-file.ts';

type AccessEvent = Extract<GatewayEvent, { readonly kind: 'access' }>;

/** One object for as long as nothing changes. */
export interface AccessInForce {
  readonly policies: Policies;
  readonly revocations: Revocations;
  /** 0: nothing has come from the cluster. */
  readonly revision: number;
  /** Whether the policies are the cluster's. */
  readonly replicated: boolean;
}

export const accessOfFile = (policies: Policies): AccessInForce => ({
  policies,
  revocations: new Revocations([]),
  revision: 0,
  replicated: false,
});

/** What counts after the event. The store has compiled this very document before. */
export const accessAfter = (before: AccessInForce, event: AccessEvent): AccessInForce => {
  const { document, revision } = event;
  const revocations = new Revocations(event.revocations);
  if (document === undefined) return { ...before, revocations, revision };
  const known = before.policies.document;
  // With a revocation alone it is the same object, and half a megabyte need not be compared.
  const same = before.replicated && (known === document || canonicalJson(known) === canonicalJson(document));
  return {
    policies: same ? before.policies : compilePolicies(document),
    revocations,
    revision,
    replicated: true,
  };
};

const noFiles = {
  version: () => undefined,
  read: (path: string) => {
    throw new Error(`${path} is not to be read here`);
  },
};
const silent = { info() {}, error() {} };

/** Without the lists of revoked certificates: each server reads its own. */
const withoutLists = (
  realms: Readonly<Record<string, RealmDocument>>,
): Readonly<Record<string, RealmDocument>> =>
  Object.fromEntries(
    Object.entries(realms).map(([name, realm]) => {
      if (realm.tls === undefined) return [name, realm];
      const { crl: _crl, ...tls } = realm.tls;
      return [name, { ...realm, tls }];
    }),
  );

/** Nobody might be left who could take it back. */
export const revokesItself: Failure = {
  code: 'ACCESS_REFUSED',
  message:
    'this would revoke the very credential that asks for it, and perhaps the last that may change access: ask with another one, which it leaves alone',
};

export interface CheckedDocument {
  /** Canonical JSON. */
  readonly document: Uint8Array;
  /** Whether the one who applies it may still change policies then. */
  readonly keepsAuthor: boolean;
}

/** Throws CONFIGURATION_INVALID for what is no policy document, or names certificates or keys that cannot be used. */
export const checkDocument = (bytes: Uint8Array, author: Identity, wallMs: number): CheckedDocument => {
  let data: unknown;
  try {
    data = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw invalid('it is no JSON', cause);
  }
  const document = checkPolicyDocument(data, 'to be applied');
  let policies: Policies;
  try {
    policies = compilePolicies(document);
  } catch (error) {
    if (error instanceof PolicyError) throw invalid(error.message, error);
    throw error;
  }
  const realms = new Realms(withoutLists(document.realms), noFiles, silent);
  const verdict = realms.judge(author.proof, wallMs, 'any_age');
  const keepsAuthor = verdict.ok && policies.scopeFor(verdict.identity.principal).allows('acl.change', '');
  return { document: Buffer.from(canonicalJson(document)), keepsAuthor };
};

const invalid = (problem: string, cause: unknown): FuturestoreError =>
  new FuturestoreError('CONFIGURATION_INVALID', `The policy document is not valid: ${problem}`, { cause });

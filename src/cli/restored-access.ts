/**
 * The policies of a snapshot in the cluster that is made of it. They pin the authorities of the cluster that was, and the
 * new one has an authority of its own, whose certificates they would all refuse, the administrator's among them.
 */
import { X509Certificate } from 'node:crypto';
import { FuturestoreError, limits } from '../protocol/index.ts';
import {
  canonicalJson,
  compilePolicies,
  parseSerial,
  Revocations,
  type ClusterVerb,
  type PolicyDocument,
  type RealmDocument,
  type Revocation,
} from '../scopes/index.ts';
import { administratorName, agentsAuthorityPattern } from './authority/cluster-directory.ts';

export interface SnapshotAccess {
  /** undefined: no policies were applied, so the new cluster's policy file counts. */
  readonly document: PolicyDocument | undefined;
  readonly revocations: readonly Revocation[];
}

export interface NewCluster {
  readonly clusterId: string;
  /** Of the cluster that was. */
  readonly oldClusterId: string;
  /** PEM: of agents and the administrator. */
  readonly authority: string;
  /** PEM: the administrator's own. */
  readonly administrator: string;
}

export interface AdmittedAdministrator {
  /** As the policies are to be now; undefined: as the policy file says. */
  readonly document: PolicyDocument | undefined;
  /** The realm of what the new authority signs. */
  readonly realm: string;
  /** Whether agents of the new authority are those whom the policies meant before. */
  readonly forAgents: boolean;
  /** What is different in the policies, in words. */
  readonly changes: readonly string[];
}

/** To see what is the case, and to change it; with these whatever else is missing can be had. */
const verbsNeeded: readonly ClusterVerb[] = ['cluster.status', 'acl.get', 'acl.change'];

/** The realm of the agents in the policy.yaml that init writes. */
const realmOfPolicyFile = 'agents';

/** The gateway takes so many of one realm. */
const authoritiesMax = 32;
const certificatePattern = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

const authoritiesOf = ({ tls }: RealmDocument): readonly string[] =>
  tls?.issuer.match(certificatePattern) ?? [];

/** Of futurestore's own authorities for agents, the first eight digits of the clusters for which they were made. */
const ownAuthorities = (realm: RealmDocument): readonly string[] =>
  authoritiesOf(realm).flatMap(
    (pem) => agentsAuthorityPattern.exec(new X509Certificate(pem).subject)?.[1] ?? [],
  );

/** Of the realms that pin an authority of futurestore's own the one with that of the old cluster, or else the only one. */
const formerRealm = (document: PolicyDocument, oldClusterId: string): string | undefined => {
  const found = Object.entries(document.realms).flatMap(([name, realm]) => {
    const clusters = ownAuthorities(realm);
    return clusters.length === 0 ? [] : [{ name, clusters }];
  });
  const exact = found.find(({ clusters }) => clusters.some((short) => oldClusterId.startsWith(short)));
  return (exact ?? (found.length === 1 ? found[0] : undefined))?.name;
};

/** Whether a certificate of ours would do there: we issue no revocation lists, and names of agents in the CN only. */
const takesOurs = (realm: RealmDocument): boolean =>
  realm.tls?.crl === undefined &&
  realm.tls?.identity === 'cn' &&
  authoritiesOf(realm).length < authoritiesMax;

const withAuthority = (document: PolicyDocument, name: string, authority: string): PolicyDocument => {
  const realm = document.realms[name];
  if (realm?.tls === undefined) return document;
  const tls = { ...realm.tls, issuer: `${realm.tls.issuer.trimEnd()}\n${authority}` };
  return { ...document, realms: { ...document.realms, [name]: { ...realm, tls } } };
};

const withRealm = (document: PolicyDocument, name: string, issuer: string): PolicyDocument => ({
  ...document,
  realms: { ...document.realms, [name]: { tls: { issuer, identity: 'cn' } } },
});

const withGrant = (document: PolicyDocument, realm: string, policy: string): PolicyDocument => ({
  ...document,
  policies: { ...document.policies, [policy]: [{ allow: verbsNeeded }] },
  bindings: [...document.bindings, { realm, principal: administratorName, policies: [policy] }],
});

const mayAll = (document: PolicyDocument, realm: string): boolean => {
  const scope = compilePolicies(document).scopeFor({ realm, name: administratorName });
  return verbsNeeded.every((verb) => scope.allows(verb, ''));
};

const isRevoked = (
  revocations: readonly Revocation[],
  realm: string,
  { administrator }: NewCluster,
): boolean => {
  const { serialNumber, validFrom } = new X509Certificate(administrator);
  const certificate = {
    serial: parseSerial(serialNumber) ?? serialNumber,
    issuedAtMs: Date.parse(validFrom),
  };
  const credential = { realm, name: administratorName, certificate };
  return new Revocations(revocations).find(credential) !== undefined;
};

/** With what the administrator needs in this realm; undefined: he cannot be let in there. */
const letIn = (
  document: PolicyDocument,
  realm: string,
  forAgents: boolean,
  changes: readonly string[],
  { revocations }: SnapshotAccess,
  made: NewCluster,
): AdmittedAdministrator | undefined => {
  if (isRevoked(revocations, realm, made)) return undefined;
  const fits = (one: PolicyDocument): boolean =>
    mayAll(one, realm) && Buffer.byteLength(canonicalJson(one)) <= limits.policyDocumentBytesMax;
  if (fits(document)) return { document, realm, forAgents, changes };
  const policy = `restored-${made.clusterId.slice(0, 8)}`;
  const granted = withGrant(document, realm, policy);
  const grant = `the policy ${policy} is new: it lets ${realm}:${administratorName} see the cluster and change policies`;
  return fits(granted) ? { document: granted, realm, forAgents, changes: [...changes, grant] } : undefined;
};

/**
 * Who keeps the policies of a snapshot must be able to get in, and agents be judged as before. So the new authority comes
 * beside the old ones in the realm that has that of the old cluster, whose agents keep their certificates; where there is
 * none such, or the administrator is revoked there, it gets a realm that nobody else is in.
 *
 * Throws CONFIGURATION_INVALID where the administrator cannot be let in: what is denied to all, or is revoked while no
 * policies were applied, is not undone here.
 */
export const admitAdministrator = (access: SnapshotAccess, made: NewCluster): AdmittedAdministrator => {
  const { document, revocations } = access;
  if (document === undefined) {
    if (isRevoked(revocations, realmOfPolicyFile, made)) throw keptOut();
    return { document, realm: realmOfPolicyFile, forAgents: true, changes: [] };
  }
  const former = formerRealm(document, made.oldClusterId);
  const realm = former === undefined ? undefined : document.realms[former];
  if (former !== undefined && realm !== undefined && takesOurs(realm)) {
    const beside = `the realm ${former} accepts certificates of the new authority beside those that it did`;
    const pinned = withAuthority(document, former, made.authority);
    const admitted = letIn(pinned, former, true, [beside], access, made);
    if (admitted !== undefined) return admitted;
  }
  const own = `restored-${made.clusterId.slice(0, 8)}`;
  const apart = `the realm ${own} is new, of the new authority alone: no other lets its administrator in`;
  const admitted = letIn(withRealm(document, own, made.authority), own, false, [apart], access, made);
  if (admitted === undefined) throw keptOut();
  return admitted;
};

const keptOut = (): FuturestoreError =>
  new FuturestoreError(
    'CONFIGURATION_INVALID',
    'The policies or revocations of the snapshot would keep the administrator of the new cluster out: give the same command ' +
      'with --file-policies, which leaves them behind, and put policies in force with futurestore acl apply when its servers run.',
  );

/** The policy document as plain data, as it stands in a policy file, and the verbs that it may name. */

/** What can be done with a key; `*` in a rule stands for these and no others. */
export const keyVerbs = [
  'get',
  'await',
  'list',
  'subscribe',
  'declare',
  'resolve',
  'reject',
  'delete',
  'touch',
] as const;
/**
 * What can be done with the cluster: in no wildcard, so each is granted by its name only. `member.change`: add,
 * promote, replace and remove servers, and hand leadership over. `cluster.drain`: send a server's agents elsewhere.
 * `cluster.rebalance`: spread agents over the servers. `snapshot.save`: read all keys and values. `acl.get`: read
 * policies and revocations. `acl.change`: replace the policies, revoke, and take a revocation back.
 */
export const clusterVerbs = [
  'cluster.status',
  'cluster.drain',
  'cluster.rebalance',
  'member.list',
  'member.change',
  'snapshot.save',
  'acl.get',
  'acl.change',
] as const;

export type KeyVerb = (typeof keyVerbs)[number];
export type ClusterVerb = (typeof clusterVerbs)[number];
export type Verb = KeyVerb | ClusterVerb;

const keyVerbNames: ReadonlySet<string> = new Set(keyVerbs);
const clusterVerbNames: ReadonlySet<string> = new Set(clusterVerbs);

export const isKeyVerb = (name: string): name is KeyVerb => keyVerbNames.has(name);
export const isClusterVerb = (name: string): name is ClusterVerb => clusterVerbNames.has(name);

/** 'cn': the one common name. 'dns': the one DNS name among the subject's alternative names; the common name counts for nothing. */
export const tlsIdentities = ['cn', 'dns'] as const;
export type TlsIdentity = (typeof tlsIdentities)[number];

export interface TlsRealmDocument {
  /** Who signs the realm's certificates: PEM text, or in a file the name of a PEM file. */
  readonly issuer: string;
  /** What in the certificate is the principal's name. */
  readonly identity: TlsIdentity;
  /** Where on each server the issuer's list of revoked certificates is. */
  readonly crl?: string;
}

export interface JwtRealmDocument {
  /** What the claim `iss` must be. */
  readonly issuer: string;
  /** What the claim `aud` must be or hold. */
  readonly audience: string;
  /** At least one of `jwtAlgorithms`. */
  readonly algorithms: readonly string[];
  /** A JSON Web Key Set as text, or in a file the name of a file that holds one. */
  readonly keys: string;
  /** The claim that is the principal's name: 'sub'. */
  readonly identity: string;
}

/** Signatures with a public key only: a shared secret would let each server make tokens. */
export const jwtAlgorithms = [
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
] as const;

export interface RealmDocument {
  readonly tls?: TlsRealmDocument;
  readonly jwt?: JwtRealmDocument;
  /** Variables for patterns, and where their values are from: what `parseVariableSource` knows. */
  readonly vars?: Readonly<Record<string, string>>;
}

export interface LimitDocument {
  /** How many futures that the principal declared may be pending. */
  readonly pending?: number;
  /** How many keys may have a future that the principal declared, or settled undeclared, whatever its state. */
  readonly keys?: number;
  /** How many subscriptions one connection may have. */
  readonly subscriptions?: number;
  /** How many requests of one connection may be unanswered. */
  readonly requests_in_flight?: number;
  /** Of all the principal's connections to one server. */
  readonly requests_per_second?: number;
  /** How much the values that the principal wrote may take together, for example '16MiB'. */
  readonly stored?: string;
  /** How many connections to one server the principal may have. */
  readonly connections?: number;
}

/** Exactly one of allow, deny and limit. */
export interface RuleDocument {
  /** Verbs, or '*' for all verbs of keys. */
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  /** How much the principal may have; of several rules the most generous counts, quantity by quantity. */
  readonly limit?: LimitDocument;
  /** A pattern or several; not for rules with nothing but verbs of the cluster. */
  readonly on?: string | readonly string[];
  /** With allow: the largest value that may be written under this rule, for example '64KiB'. */
  readonly value_max?: string;
  /** With allow: the longest TTL that may be given under this rule, for example '30d'; none at all is longer. */
  readonly ttl_max?: string;
}

export interface BindingDocument {
  /** Absent: every realm. */
  readonly realm?: string;
  /** One principal of the realm, by its name; absent: all of them. */
  readonly principal?: string;
  /** Only principals whose variables have exactly these values. */
  readonly where?: Readonly<Record<string, string>>;
  readonly policies: readonly string[];
}

export interface PolicyDocument {
  readonly realms: Readonly<Record<string, RealmDocument>>;
  readonly policies: Readonly<Record<string, readonly RuleDocument[]>>;
  readonly bindings: readonly BindingDocument[];
}

export interface PolicyProblem {
  /** Where in the document: 'policies.agent[1].on'. */
  readonly place: string;
  readonly problem: string;
}

/** A document of half a megabyte can have a hundred thousand; their text is sent in an answer, and logged. */
const problemsToldMax = 20;
const problemLengthMax = 400;

/** One text of many problems: the first ones, none of them endless, and how many more there are. */
export const problemsText = (problems: readonly string[]): string => {
  const told = problems
    .slice(0, problemsToldMax)
    .map((text) => (text.length <= problemLengthMax ? text : `${text.slice(0, problemLengthMax - 1)}…`));
  const more = problems.length - told.length;
  const text = (more > 0 ? [...told, `and ${more} more`] : told).join('; ');
  // What is quoted may be no valid Unicode, and what was cut may be none any more: it could not be sent.
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
};

/** Every problem of a document, each with its place; its text has the first ones. */
export class PolicyError extends Error {
  readonly problems: readonly PolicyProblem[];

  constructor(problems: readonly PolicyProblem[]) {
    super(problemsText(problems.map(({ place, problem }) => `${place}: ${problem}`)));
    this.name = 'PolicyError';
    this.problems = problems;
  }
}

/**
 * Who an agent is. Its certificate is judged by the keys that a realm pins, a token by the realm's pinned keys and
 * algorithms; where both are there they must name one principal. What was proved once (a signature) is kept as plain
 * data, so that a connection can be judged again, by other realms or newer revocation lists, at next to no cost.
 */
import type { X509Certificate } from 'node:crypto';
import { closeCodes, FuturestoreError } from '../protocol/index.ts';
import { parseVariableSource } from '../scopes/index.ts';
import type { Credential, Principal, RealmDocument } from '../scopes/index.ts';
import { chainOf, hasIssued, parseAuthorities, refuseSharedKeys } from './authorities.ts';
import type { Authority } from './authorities.ts';
import { readCertificate } from './certificates.ts';
import type { CertificateFacts } from './certificates.ts';
import { revocationListReader } from './revocation-list-reader.ts';
import type { ReadRevocationLists } from './revocation-list-reader.ts';
import { RevocationLists, skewMs } from './revocation-lists.ts';
import { tokenIssuer, TokenRealm } from './tokens.ts';
import type { ProvenToken } from './tokens.ts';
import type { FileReader } from './watched-files.ts';

export interface ProvenCertificate extends CertificateFacts {
  readonly realm: string;
  /** The authority's certificate with which the signature was verified, by its fingerprint. */
  readonly issuer: string;
}

/** What a client has proved. */
export interface Proof {
  readonly certificate?: ProvenCertificate;
  readonly token?: ProvenToken;
}

export interface Identity {
  readonly principal: Principal;
  readonly credential: Credential;
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number;
  readonly proof: Proof;
}

export interface IdentityRefusal {
  readonly ok: false;
  /** For the one who is refused, and the log. */
  readonly problem: string;
  /** Of closeCodes: whether it makes sense to come back. */
  readonly closeCode: number;
  /** 'realm:name', where that much was proved: for the log. */
  readonly principal?: string;
}

export type IdentityVerdict = { readonly ok: true; readonly identity: Identity } | IdentityRefusal;

export type Proved<T> = { readonly ok: true; readonly proved: T } | IdentityRefusal;

type RealmDocuments = Readonly<Record<string, RealmDocument>>;

interface IdentityLogger {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

interface Realm {
  readonly name: string;
  readonly document: RealmDocument;
  readonly authorities: readonly Authority[];
  readonly token: TokenRealm | undefined;
  /** The state of the file that was read last, good or bad; 'unread' before. */
  listVersion: string | undefined;
  /** Only where the realm has a list: the last good one. */
  lists: RevocationLists | undefined;
  /** What was wrong with the file when it was read last. */
  listProblem: string | undefined;
}

type Table = ReadonlyMap<string, Realm>;

/**
 * Certificates that were proved before: reading and verifying one costs 2 ms, and when a server dies all of its agents
 * come at once. Only what a pinned authority has signed gets in. About 10 MB.
 */
const provedMax = 20_000;

/** Judges certificates and tokens by the realms of a policy document. */
export class Realms {
  readonly #files: FileReader;
  readonly #readRevocationLists: ReadRevocationLists;
  readonly #logger: IdentityLogger;
  readonly #changed: () => void;
  #table: Table;
  #version = 1;
  /** By the SHA-256 of the certificate; of the present table. */
  readonly #proved = new Map<string, Proved<ProvenCertificate>>();
  /** Reading is done one after the other: what was asked for last is what counts in the end. */
  #work: Promise<unknown> = Promise.resolve();

  /**
   * Throws CONFIGURATION_INVALID for what is no certificate or key, and for an issuer that two realms share. A realm
   * with a revocation list accepts no certificate before `look` has read it. `changed` is called when `version` has changed.
   */
  constructor(
    documents: RealmDocuments,
    files: FileReader,
    logger: IdentityLogger,
    readLists: ReadRevocationLists = revocationListReader(undefined),
    changed: () => void = () => undefined,
  ) {
    this.#files = files;
    this.#readRevocationLists = readLists;
    this.#logger = logger;
    this.#changed = changed;
    this.#table = tableOf(documents);
  }

  /** Changes whenever identities are to be judged again. */
  get version(): number {
    return this.#version;
  }

  /** For TLS: every certificate of every realm. */
  get authorities(): string[] {
    return [...this.#table.values()].flatMap((realm) =>
      realm.authorities.map(({ certificate }) => certificate.toString()),
    );
  }

  /** Whether somebody without a certificate may still become somebody. */
  get takesTokens(): boolean {
    return [...this.#table.values()].some(({ token }) => token !== undefined);
  }

  /** Takes other realms. Rejects with CONFIGURATION_INVALID, and then keeps those it had. `wallMs`: since 1970. */
  replace(documents: RealmDocuments, wallMs: number): Promise<void> {
    return this.#inTurn(async () => {
      const table = tableOf(documents);
      for (const realm of table.values()) {
        const before = this.#table.get(realm.name);
        // The lists of these very authorities stay good if the file cannot be read just now.
        if (before !== undefined && hasSameLists(realm, before)) realm.lists = before.lists;
        await this.#readLists(realm, wallMs);
      }
      this.#table = table;
      this.#proved.clear();
      this.#differs();
    });
  }

  /** Reads the revocation lists whose files have changed. Never rejects: what is wrong is logged, and in `judge`. */
  look(wallMs: number): Promise<void> {
    return this.#inTurn(async () => {
      for (const realm of this.#table.values()) {
        const path = realm.document.tls?.crl;
        if (path === undefined) continue;
        const version = this.#files.version(path);
        // One that could not be used is tried each time: time or rights may mend it.
        if (version === realm.listVersion && realm.listProblem === undefined) continue;
        await this.#readLists(realm, wallMs);
      }
    });
  }

  /**
   * `leaf`: what the peer proved to hold the key of. To be asked after every handshake, resumed ones too. undefined: it
   * was signed by no authority of any realm.
   */
  prove(leaf: X509Certificate): Proved<ProvenCertificate> | undefined {
    const known = this.#proved.get(leaf.fingerprint256);
    if (known !== undefined) return known;
    const proved = this.#proveAnew(leaf);
    if (proved === undefined) return undefined;
    const [oldest] = this.#proved.keys();
    if (this.#proved.size >= provedMax && oldest !== undefined) this.#proved.delete(oldest);
    this.#proved.set(leaf.fingerprint256, proved);
    return proved;
  }

  #proveAnew(leaf: X509Certificate): Proved<ProvenCertificate> | undefined {
    for (const realm of this.#table.values()) {
      const issuer = realm.authorities.find((authority) => hasIssued(authority, leaf));
      if (issuer === undefined) continue;
      const read = readCertificate(leaf, realm.document.tls?.identity ?? 'cn');
      if (!read.ok) return refused(read.problem);
      return { ok: true, proved: { ...read.facts, realm: realm.name, issuer: issuer.fingerprint } };
    }
    return undefined;
  }

  /** Verifies a token. Half a millisecond of the processor's time. */
  async proveToken(token: string, wallMs: number): Promise<Proved<ProvenToken>> {
    const claimed = tokenIssuer(token);
    if (claimed === undefined) return refused('the token is no JWT with an issuer (iss): get a new one');
    for (const { token: realm } of this.#table.values()) {
      if (realm?.issuer !== claimed.issuer || !claimed.audiences.includes(realm.audience)) continue;
      const verdict = await realm.verify(token, wallMs);
      if (verdict.ok) return { ok: true, proved: verdict.token };
      const { problem, expired, name } = verdict;
      return ofPrincipal(
        name === undefined ? undefined : { realm: realm.realm, name },
        refused(problem, expired ? closeCodes.authenticationExpired : closeCodes.unauthenticated),
      );
    }
    return refused('no realm here takes tokens of this issuer for this audience: check iss and aud');
  }

  /**
   * Who it is. `any_age`: for those who are connected already, so that a revocation list that has become too old keeps
   * new ones out, but does not throw everybody out at once.
   */
  judge({ certificate, token }: Proof, wallMs: number, lists: 'fresh' | 'any_age'): IdentityVerdict {
    const realm = this.#table.get(certificate?.realm ?? token?.realm ?? '');
    if (realm === undefined) {
      const proved = certificate ?? token;
      return proved === undefined
        ? refused('there is neither a certificate nor a token: connect with one that a realm accepts')
        : ofPrincipal(
            proved,
            refused('its realm is no more: have a certificate issued, or a token, by one that there is'),
          );
    }
    const refusal =
      (certificate && this.#certificateRefusal(realm, certificate, wallMs, lists)) ??
      (token && tokenRefusal(realm, token, wallMs)) ??
      (certificate && token && disagreement(certificate, token));
    if (refusal !== undefined) return ofPrincipal(certificate ?? token, refusal);
    const name = certificate?.name ?? token?.name ?? '';
    const variables = variablesOf(realm.document, {
      ...(certificate && { certificate }),
      ...(token && { token }),
    });
    const identity: Identity = {
      principal: { realm: realm.name, name, ...(variables && { variables }) },
      credential: {
        realm: realm.name,
        name,
        ...(certificate && {
          certificate: { serial: certificate.serial, issuedAtMs: certificate.issuedAtMs },
        }),
        ...(token && {
          token: { issuedAtMs: token.issuedAtMs, ...(token.id !== undefined && { id: token.id }) },
        }),
      },
      expiresAtMs: Math.min(certificate?.expiresAtMs ?? Infinity, token?.expiresAtMs ?? Infinity),
      proof: { ...(certificate && { certificate }), ...(token && { token }) },
    };
    return { ok: true, identity };
  }

  /** Of one that is connected, without verifying any signature again. The same object where nothing has changed. */
  judgeAgain(identity: Identity, wallMs: number): IdentityVerdict {
    const verdict = this.judge(identity.proof, wallMs, 'any_age');
    if (!verdict.ok) return verdict;
    const same =
      verdict.identity.expiresAtMs === identity.expiresAtMs &&
      sameVariables(verdict.identity.principal.variables, identity.principal.variables);
    return same ? { ok: true, identity } : verdict;
  }

  #certificateRefusal(
    realm: Realm,
    certificate: ProvenCertificate,
    wallMs: number,
    freshness: 'fresh' | 'any_age',
  ): IdentityRefusal | undefined {
    const issuer = realm.authorities.find(({ fingerprint }) => fingerprint === certificate.issuer);
    if (issuer === undefined)
      return refused(
        'the CA that signed the certificate is no CA of its realm any more: have a new one issued',
      );
    if (realm.document.tls?.identity !== certificate.namedBy) {
      // Its new name is found in the certificate when that is shown again.
      const text = `the realm takes names from another part of certificates (${realm.document.tls?.identity}) now: connect again`;
      return refused(text, closeCodes.authenticationExpired);
    }
    if (!(certificate.expiresAtMs > wallMs))
      return refused(`the certificate expired at ${instant(certificate.expiresAtMs)}: renew it`);
    if (!(certificate.issuedAtMs <= wallMs + skewMs))
      return refused(
        `the certificate is not valid before ${instant(certificate.issuedAtMs)}: check the clocks`,
      );
    const dead = chainOf(issuer).find(({ expiresAtMs }) => !(expiresAtMs > wallMs));
    if (dead !== undefined)
      return refused(
        `the CA ${JSON.stringify(dead.certificate.subject)} of the realm expired at ${instant(dead.expiresAtMs)}`,
      );
    if (realm.document.tls?.crl === undefined) return undefined;
    if (realm.lists === undefined) {
      const text =
        "whether the certificate is revoked is not known (the realm's revocation list cannot be used): see the server's log";
      return refused(text, closeCodes.identityUnavailable);
    }
    const found = realm.lists.problem(issuer, certificate.serial, wallMs, freshness);
    if (found === undefined) return undefined;
    return refused(found.text, found.revoked ? closeCodes.revoked : closeCodes.identityUnavailable);
  }

  #differs(): void {
    this.#version += 1;
    this.#changed();
  }

  async #readLists(realm: Realm, wallMs: number): Promise<void> {
    const path = realm.document.tls?.crl;
    if (path === undefined) return;
    const version = this.#files.version(path);
    try {
      const authorities = realm.authorities.map(({ fingerprint, certificate }) => ({
        fingerprint,
        certificate: certificate.raw,
      }));
      const text = this.#files.read(path);
      const read = new RevocationLists(
        await this.#readRevocationLists({ text, source: path, authorities, wallMs }),
      );
      realm.lists = realm.lists === undefined ? read : read.withNewerOf(realm.lists);
      realm.listProblem = undefined;
      realm.listVersion = version;
      // Those of realms that do not count yet come with them.
      if (this.#table.get(realm.name) === realm) this.#differs();
      this.#logger.info({ realm: realm.name, file: path }, 'a revocation list was read');
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      realm.listVersion = version;
      if (problem === realm.listProblem) return;
      realm.listProblem = problem;
      const kept = realm.lists !== undefined;
      this.#logger.error(
        { realm: realm.name, file: path, problem, kept },
        kept
          ? 'a new revocation list cannot be used: the one before it counts until it expires'
          : 'a revocation list cannot be used: nobody of its realm is let in with a certificate',
      );
    }
  }

  #inTurn(step: () => Promise<void>): Promise<void> {
    const done = this.#work.then(step);
    this.#work = done.catch(() => undefined);
    return done;
  }
}

/** 'realm:name'. */
export const principalText = ({ principal }: Identity): string => `${principal.realm}:${principal.name}`;

const refused = (problem: string, closeCode: number = closeCodes.unauthenticated): IdentityRefusal => ({
  ok: false,
  problem,
  closeCode,
});

const ofPrincipal = (
  proved: { readonly realm: string; readonly name: string } | undefined,
  refusal: IdentityRefusal,
): IdentityRefusal =>
  proved === undefined ? refusal : { ...refusal, principal: `${proved.realm}:${proved.name}` };

const instant = (ms: number): string => (Number.isNaN(ms) ? 'no time' : new Date(ms).toISOString());

const tokenRefusal = (realm: Realm, token: ProvenToken, wallMs: number): IdentityRefusal | undefined => {
  if (!(token.expiresAtMs > wallMs)) {
    const text = `the token expired at ${instant(token.expiresAtMs)}: get a new one`;
    return refused(text, closeCodes.authenticationExpired);
  }
  if (realm.token?.verifiedWith === token.verifiedWith || realm.name !== token.realm) return undefined;
  const text = 'the keys with which the token was verified have changed: it is to be shown again';
  return refused(text, closeCodes.authenticationExpired);
};

const disagreement = (certificate: ProvenCertificate, token: ProvenToken): IdentityRefusal | undefined =>
  certificate.realm === token.realm && certificate.name === token.name
    ? undefined
    : refused(
        `the certificate is of ${certificate.realm}:${certificate.name} and the token of ${token.realm}:${token.name}: use two of one principal, or one of them`,
      );

/** What the realm takes from certificate and token, but for the name, which policies know themselves. */
const variablesOf = (
  { vars }: RealmDocument,
  { certificate, token }: Proof,
): Readonly<Record<string, string>> | undefined => {
  const found: [string, string][] = [];
  for (const [variable, source] of Object.entries(vars ?? {})) {
    const value = valueOf(source, certificate, token);
    if (value !== undefined) found.push([variable, value]);
  }
  return found.length === 0 ? undefined : Object.fromEntries(found);
};

const sameVariables = (
  a: Readonly<Record<string, string>> | undefined,
  b: Readonly<Record<string, string>> | undefined,
): boolean => {
  const names = Object.keys(a ?? {});
  return names.length === Object.keys(b ?? {}).length && names.every((name) => a?.[name] === b?.[name]);
};

const valueOf = (
  source: string,
  certificate: ProvenCertificate | undefined,
  token: ProvenToken | undefined,
): string | undefined => {
  const parsed = parseVariableSource(source);
  switch (parsed?.kind) {
    case 'extension':
      return certificate?.extensions.get(parsed.oid);
    case 'claim':
      return token?.claims.get(parsed.name);
    case 'name':
    case undefined:
      return undefined;
    default:
      return parsed satisfies never;
  }
};

const tableOf = (documents: RealmDocuments): Table => {
  const table = new Map<string, Realm>();
  for (const [name, document] of Object.entries(documents)) {
    const { tls, jwt } = document;
    table.set(name, {
      name,
      document,
      authorities: tls === undefined ? [] : parseAuthorities(name, tls.issuer),
      token: jwt === undefined ? undefined : new TokenRealm(name, jwt),
      listVersion: 'unread',
      lists: undefined,
      listProblem: undefined,
    });
  }
  const realms = [...table.values()];
  refuseSharedKeys(realms.flatMap(({ authorities }) => authorities));
  refuseSharedIssuers(realms.flatMap(({ token }) => token ?? []));
  return table;
};

const refuseSharedIssuers = (realms: readonly TokenRealm[]): void => {
  for (const [index, realm] of realms.entries()) {
    const other = realms
      .slice(0, index)
      .find(({ issuer, audience }) => issuer === realm.issuer && audience === realm.audience);
    if (other === undefined) continue;
    throw new FuturestoreError(
      'CONFIGURATION_INVALID',
      `realms ${other.realm} and ${realm.realm} take tokens of one issuer for one audience, so nobody could tell their principals apart: give each an audience of its own`,
    );
  }
};

const hasSameLists = (a: Realm, b: Realm): boolean =>
  a.document.tls?.crl === b.document.tls?.crl && a.document.tls?.issuer === b.document.tls?.issuer;

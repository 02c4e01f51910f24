/**
 * Tokens (JWT): who a client without a certificate is, or what a certificate does not say. The keys and the algorithms
 * are the realm's, pinned; nothing in a token chooses them, and none is fetched.
 */
import { createHash } from 'node:crypto';
import { createLocalJWKSet, decodeJwt, errors, jwtVerify } from 'jose';
import type { JSONWebKeySet, JWTPayload, JWTVerifyGetKey } from 'jose';
import { FuturestoreError, limits } from '../protocol/index.ts';
import { jwtAlgorithms } from '../scopes/index.ts';
import type { JwtRealmDocument } from '../scopes/index.ts';
import { segmentProblem } from './certificates.ts';

/** What a verified token says. */
export interface ProvenToken {
  readonly realm: string;
  readonly name: string;
  /** `jti`. */
  readonly id: string | undefined;
  /** Milliseconds since 1970. 0: it does not say, so it counts as older than anything. */
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  /** Its texts, numbers and yes-or-nos: what variables may be taken from. */
  readonly claims: ReadonlyMap<string, string>;
  /** What it was verified with: once that has changed the token has to be verified again. */
  readonly verifiedWith: string;
}

export type TokenVerdict =
  | { readonly ok: true; readonly token: ProvenToken }
  | {
      readonly ok: false;
      readonly problem: string;
      readonly expired: boolean;
      /** Where the signature is good: whose it was. */
      readonly name?: string;
    };

const known: ReadonlySet<string> = new Set(jwtAlgorithms);

/** An issuer and its verifiers may be so far apart with their clocks. */
const skewSeconds = 30;
const keysMax = 64;
const claimLengthMax = 128;
/** The last instant that has a date. */
const instantMsMax = 8_640_000_000_000_000;
/** Half of a surrogate pair is no text that could be sent or stored. */
const halfCharacter = /\p{Surrogate}/u;
const printableAscii = /^[\x20-\x7e]+$/;

export class TokenRealm {
  readonly realm: string;
  readonly issuer: string;
  readonly audience: string;
  readonly identity: string;
  readonly verifiedWith: string;
  readonly #algorithms: string[];
  readonly #keys: JWTVerifyGetKey;

  /** Throws CONFIGURATION_INVALID. */
  constructor(realm: string, settings: JwtRealmDocument) {
    this.realm = realm;
    this.issuer = settings.issuer;
    this.audience = settings.audience;
    this.identity = settings.identity;
    this.#algorithms = [...settings.algorithms];
    const weak = this.#algorithms.find((algorithm) => !known.has(algorithm));
    if (weak !== undefined || this.#algorithms.length === 0) {
      const all = jwtAlgorithms.join(' ');
      throw invalid(
        realm,
        `its tokens' algorithms must be some of ${all}, not ${JSON.stringify(weak ?? [])}`,
      );
    }
    this.#keys = parseKeys(realm, settings.keys);
    this.verifiedWith = createHash('sha256')
      .update(JSON.stringify([realm, settings]))
      .digest('base64');
  }

  /** `wallMs`: milliseconds since 1970. Never rejects; the problem never has the token in it. */
  async verify(token: string, wallMs: number): Promise<TokenVerdict> {
    try {
      const { payload } = await jwtVerify(token, this.#keys, {
        issuer: this.issuer,
        audience: this.audience,
        algorithms: this.#algorithms,
        requiredClaims: ['exp', 'iss', 'aud', this.identity],
        clockTolerance: skewSeconds,
        currentDate: new Date(wallMs),
      });
      return this.#read(payload);
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        const problem = `the token expired at ${instantOf(error.payload.exp)}: get a new one`;
        const name = error.payload[this.identity];
        const isName = typeof name === 'string' && segmentProblem('', name) === undefined;
        return { ok: false, problem, expired: true, ...(isName && { name }) };
      }
      return refused(problemOf(error, this));
    }
  }

  #read(payload: JWTPayload): TokenVerdict {
    const name = payload[this.identity];
    if (typeof name !== 'string')
      return refused(`the token's claim ${this.identity} is no text: it must be a name`);
    const unfit = segmentProblem(`token's claim ${this.identity}`, name);
    if (unfit !== undefined) return refused(unfit.problem);
    const { exp, iat, jti } = payload;
    if (exp === undefined) return refused('the token has no exp: it must say until when it counts');
    // The library takes any number, so fractions and far too large ones; both go into the log.
    const issuedAtMs = iat === undefined ? 0 : Math.max(0, Math.floor(iat * 1000));
    if (!(issuedAtMs <= instantMsMax))
      return refused("the token's claim iat is no time: it must be in seconds since 1970");
    if (jti !== undefined && !isTokenId(jti))
      return refused(
        `the token's claim jti must be 1 to ${limits.tokenIdBytesMax} printable ASCII characters, so that it can be revoked by it`,
      );
    const token: ProvenToken = {
      realm: this.realm,
      name,
      id: jti,
      issuedAtMs,
      // What was accepted within the tolerance lives on to its end.
      expiresAtMs: Math.min(Math.floor((exp + skewSeconds) * 1000), instantMsMax),
      claims: plainClaims(payload),
      verifiedWith: this.verifiedWith,
    };
    return { ok: true, token };
  }
}

const invalid = (realm: string, problem: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError('CONFIGURATION_INVALID', `realm ${realm}: ${problem}`, { cause });

const refused = (problem: string): TokenVerdict => ({ ok: false, problem, expired: false });

/** What the library calls a text is only said to be one. */
const isTokenId = (jti: unknown): boolean =>
  typeof jti === 'string' && jti.length <= limits.tokenIdBytesMax && printableAscii.test(jti);

const instantOf = (seconds: unknown): string => {
  const date = new Date(typeof seconds === 'number' ? seconds * 1000 : Number.NaN);
  return Number.isNaN(date.getTime()) ? 'some time' : date.toISOString();
};

/** jose's own texts name claims and reasons; what they would quote is left out. */
const problemOf = (error: unknown, { issuer, audience, realm }: TokenRealm): string => {
  const of = `realm ${realm}`;
  if (error instanceof errors.JWTClaimValidationFailed) {
    const wanted = `${of} wants issuer ${issuer} and audience ${audience}`;
    return `the token's claim ${error.claim} is missing or not what it must be (${error.reason}): ${wanted}`;
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return `the token's algorithm is none that ${of} allows`;
  if (error instanceof errors.JWKSNoMatchingKey)
    return `the token names a key (kid) that ${of} does not have`;
  if (error instanceof errors.JWKSMultipleMatchingKeys)
    return `the token names no key (kid), and ${of} has several that fit`;
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return `the token's signature is not by a key of ${of}`;
  return 'the token is no JWT that can be verified: get a new one from its issuer';
};

const plainClaims = (payload: JWTPayload): ReadonlyMap<string, string> => {
  const claims = new Map<string, string>();
  for (const [claim, value] of Object.entries(payload)) {
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') continue;
    const text = String(value);
    // More is no segment of a key, so no variable either.
    if (text.length <= claimLengthMax && !halfCharacter.test(text)) claims.set(claim, text);
  }
  return claims;
};

const parseKeys = (realm: string, text: string): JWTVerifyGetKey => {
  let keys: unknown;
  try {
    keys = JSON.parse(text);
  } catch (error) {
    throw invalid(realm, 'its keys are no JSON: give a JWKS, {"keys": [...]}', error);
  }
  const list: unknown = typeof keys === 'object' && keys !== null && 'keys' in keys ? keys.keys : undefined;
  if (!Array.isArray(list) || list.length === 0 || list.length > keysMax)
    throw invalid(realm, `its keys must be a JWKS, {"keys": [...]}, with 1 to ${keysMax} keys`);
  for (const [index, key] of list.entries()) checkKey(realm, index, key);
  try {
    return createLocalJWKSet(keys as JSONWebKeySet);
  } catch (error) {
    throw invalid(realm, 'its keys are no JWKS that can be used', error);
  }
};

const checkKey = (realm: string, index: number, key: unknown): void => {
  if (typeof key !== 'object' || key === null || !('kty' in key))
    throw invalid(realm, `keys[${index}] is no key: it needs a kty`);
  if (key.kty === 'oct' || 'd' in key || 'k' in key)
    throw invalid(realm, `keys[${index}] is a secret key: give its public half only, and make a new key`);
};

/** To find the realm that is to verify it; nothing in it is to be believed yet. */
export const tokenIssuer = (
  token: string,
): { readonly issuer: string; readonly audiences: readonly string[] } | undefined => {
  if (token.length > limits.tokenBytesMax) return undefined;
  try {
    const { iss, aud } = decodeJwt(token);
    if (typeof iss !== 'string') return undefined;
    return { issuer: iss, audiences: typeof aud === 'string' ? [aud] : (aud ?? []) };
  } catch {
    return undefined;
  }
};

/** Makes tokens, good ones and all kinds of bad ones. */
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import type { CryptoKey, JWK } from 'jose';
import type { JwtRealmDocument } from '../../src/scopes/index.ts';

export interface TokenKey {
  readonly key: CryptoKey;
  readonly jwk: JWK;
}

export const tokenKey = async (algorithm = 'ES256', kid = 'k1'): Promise<TokenKey> => {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
  return { key: privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg: algorithm } };
};

export const issuer = 'https://ci.example.com';
export const audience = 'futurestore';

export const tokenRealm = (
  keys: readonly JWK[],
  more: Partial<JwtRealmDocument> = {},
): { readonly jwt: JwtRealmDocument } => ({
  jwt: {
    issuer,
    audience,
    algorithms: ['ES256'],
    keys: JSON.stringify({ keys }),
    identity: 'sub',
    ...more,
  },
});

/** Seconds from now. */
interface TokenRequest {
  readonly key: CryptoKey;
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly header?: Readonly<Record<string, unknown>>;
  readonly expiresIn?: number;
  readonly nowMs?: number;
}

export const token = ({ key, claims, header, expiresIn = 600, nowMs = Date.now() }: TokenRequest) => {
  const nowSeconds = Math.floor(nowMs / 1000);
  const payload = {
    iss: issuer,
    aud: audience,
    sub: 'build-7',
    iat: nowSeconds,
    exp: nowSeconds + expiresIn,
    jti: 't1',
    ...claims,
  };
  const present = Object.fromEntries(Object.entries(payload).filter(([, value]) => value !== undefined));
  return new SignJWT(present).setProtectedHeader({ alg: 'ES256', kid: 'k1', ...header }).sign(key);
};

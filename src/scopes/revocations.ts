/** Revocations: what takes a credential's power away before it expires by itself. */

export type Revocation =
  /** `serial`: as `parseSerial` gives it. */
  | { readonly kind: 'certificate'; readonly realm: string; readonly serial: string }
  | { readonly kind: 'principal'; readonly realm: string; readonly name: string }
  | { readonly kind: 'token'; readonly realm: string; readonly tokenId: string }
  /** All that was issued before `atMs` (since 1970), to everybody of the realm where there is no name. */
  | {
      readonly kind: 'issued_before';
      readonly realm: string;
      readonly name?: string;
      readonly atMs: number;
    };

/** What a connection has shown of itself: a certificate, a token, or both. */
export interface Credential {
  readonly realm: string;
  readonly name: string;
  /** `serial`: as `parseSerial` gives it. */
  readonly certificate?: { readonly serial: string; readonly issuedAtMs: number };
  readonly token?: { readonly id?: string; readonly issuedAtMs: number };
}

/**
 * A certificate's serial number in its one form here: lower-case hexadecimal without leading zeros. Takes what tools
 * print: upper case, '0x' in front, colons between the bytes. undefined: it is none.
 */
export function parseSerial(text: string): string | undefined {
  const digits = text.replace(/^0x/i, '').replaceAll(':', '').toLowerCase();
  // RFC 5280 allows 20 bytes; some authorities wrote more.
  if (!/^[0-9a-f]{1,80}$/.test(digits)) return undefined;
  return digits.replace(/^0+(?=.)/, '');
}

/** Whether any part of the credential was issued before. */
const issuedBefore = ({ certificate, token }: Credential, atMs: number): boolean =>
  (certificate !== undefined && certificate.issuedAtMs < atMs) ||
  (token !== undefined && token.issuedAtMs < atMs);

/** Whether the credential has no power any more. */
export const revokes = (revocation: Revocation, credential: Credential): boolean => {
  if (revocation.realm !== credential.realm) return false;
  switch (revocation.kind) {
    case 'certificate':
      return credential.certificate?.serial === revocation.serial;
    case 'principal':
      return credential.name === revocation.name;
    case 'token':
      return credential.token?.id === revocation.tokenId;
    case 'issued_before':
      return (
        (revocation.name === undefined || revocation.name === credential.name) &&
        issuedBefore(credential, revocation.atMs)
      );
    default:
      return revocation satisfies never;
  }
};

type IssuedBefore = Extract<Revocation, { kind: 'issued_before' }>;

/** A realm's name has no blank, so this is the only way to read it. */
const within = (realm: string, name: string): string => `${realm} ${name}`;

/** Many revocations; a credential is looked up in constant time. */
export class Revocations {
  readonly list: readonly Revocation[];
  readonly #certificates = new Map<string, Revocation>();
  readonly #principals = new Map<string, Revocation>();
  readonly #tokens = new Map<string, Revocation>();
  /** By realm, and by realm and name: the latest, which says all that the earlier ones say. */
  readonly #realmsBefore = new Map<string, IssuedBefore>();
  readonly #principalsBefore = new Map<string, IssuedBefore>();

  constructor(list: readonly Revocation[]) {
    this.list = list;
    for (const revocation of list) this.#add(revocation);
  }

  #add(revocation: Revocation): void {
    const { realm } = revocation;
    switch (revocation.kind) {
      case 'certificate':
        this.#certificates.set(within(realm, revocation.serial), revocation);
        break;
      case 'principal':
        this.#principals.set(within(realm, revocation.name), revocation);
        break;
      case 'token':
        this.#tokens.set(within(realm, revocation.tokenId), revocation);
        break;
      case 'issued_before':
        if (revocation.name === undefined) keepLatest(this.#realmsBefore, realm, revocation);
        else keepLatest(this.#principalsBefore, within(realm, revocation.name), revocation);
        break;
      default:
        revocation satisfies never;
    }
  }

  /** One that revokes the credential, if any does. */
  find(credential: Credential): Revocation | undefined {
    const { realm, name, certificate, token } = credential;
    const found =
      this.#principals.get(within(realm, name)) ??
      (certificate && this.#certificates.get(within(realm, certificate.serial))) ??
      (token?.id === undefined ? undefined : this.#tokens.get(within(realm, token.id)));
    if (found !== undefined) return found;
    for (const before of [this.#principalsBefore.get(within(realm, name)), this.#realmsBefore.get(realm)]) {
      if (before !== undefined && issuedBefore(credential, before.atMs)) return before;
    }
    return undefined;
  }
}

const keepLatest = (latest: Map<string, IssuedBefore>, name: string, revocation: IssuedBefore): void => {
  const known = latest.get(name);
  if (known === undefined || known.atMs < revocation.atMs) latest.set(name, revocation);
};

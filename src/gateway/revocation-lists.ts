/**
 * Certificate revocation lists of one realm. Each is verified with the key of the pinned authority that it is of; what
 * is expired, forged or of nobody is told in words and never counts as "not revoked".
 */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { chainOf } from './authorities.ts';
import type { Authority } from './authorities.ts';
import { serialOf } from './certificates.ts';

/** Of one authority. */
export interface RevocationList {
  readonly serials: ReadonlySet<string>;
  /** Milliseconds since 1970. */
  readonly fromMs: number;
  readonly untilMs: number;
}

interface ListProblem {
  /** Else it is not known whether it is. */
  readonly revoked: boolean;
  readonly text: string;
}

const listPattern = /-----BEGIN X509 CRL-----[\s\S]*?-----END X509 CRL-----/g;
/** Some ten thousand certificates with what is said of each. */
const charactersMax = 4 * 1024 * 1024;
/** Clocks differ: what was signed just now may seem to be of the future. */
export const skewMs = 5 * 60_000;

/** About 20,000 certificates, of which each takes 0.1 to 0.8 ms; the library's own bound is some 2,500. */
const parseOptions = { berOptions: { maxNodes: 100_000 } };

const crlNumber = '2.5.29.20';
const authorityKeyIdentifier = '2.5.29.35';

export class RevocationLists {
  /** By the fingerprint of the authority. */
  readonly #lists: ReadonlyMap<string, RevocationList>;

  constructor(lists: ReadonlyMap<string, RevocationList>) {
    this.#lists = lists;
  }

  /** Why a certificate with this serial, signed by this authority, is not to be accepted; undefined: it may be. */
  problem(
    authority: Authority,
    serial: string,
    wallMs: number,
    freshness: 'fresh' | 'any_age',
  ): ListProblem | undefined {
    let outdated: string | undefined;
    // The last of the chain is pinned, and answers for itself.
    let below = serial;
    for (const signer of chainOf(authority)) {
      const list = this.#lists.get(signer.fingerprint);
      const of = JSON.stringify(signer.certificate.subject);
      if (list?.serials.has(below) === true)
        return { revoked: true, text: `the certificate with serial ${below} was revoked by ${of}` };
      if (list === undefined) outdated = `there is no list of ${of}`;
      else if (list.untilMs <= wallMs && freshness === 'fresh')
        outdated = `the list of ${of} expired at ${new Date(list.untilMs).toISOString()}`;
      below = signer.serial;
    }
    if (outdated === undefined) return undefined;
    const text = `whether the certificate is revoked is not known (${outdated}): bring the server's revocation list up to date`;
    return { revoked: false, text };
  }

  /** Of each authority the newer of both: an older file put back does not make a revoked certificate good. */
  withNewerOf(before: RevocationLists): RevocationLists {
    const lists = new Map(this.#lists);
    for (const [fingerprint, old] of before.#lists) {
      const now = lists.get(fingerprint);
      if (now === undefined || now.fromMs < old.fromMs) lists.set(fingerprint, old);
    }
    return new RevocationLists(lists);
  }
}

/** As plain data, so that it can be sent to another thread. */
interface PinnedAuthority {
  readonly fingerprint: string;
  /** DER. */
  readonly certificate: Uint8Array;
}

export interface ListReading {
  readonly text: string;
  /** What it is called in errors. */
  readonly source: string;
  readonly authorities: readonly PinnedAuthority[];
  readonly wallMs: number;
}

/**
 * Reads the text of a file with one list or several: by the fingerprint of the authority. Throws an Error that says what
 * is wrong with it; a file is taken as a whole or not at all. Lists of authorities that are not pinned are passed over:
 * they say nothing about the realm.
 */
export const parseRevocationLists = async ({
  text,
  source,
  authorities,
  wallMs,
}: ListReading): Promise<ReadonlyMap<string, RevocationList>> => {
  if (text.length > charactersMax)
    throw new Error(`${source} has ${text.length} characters, at most ${charactersMax} are read`);
  const blocks = text.match(listPattern) ?? [];
  if (blocks.length === 0) throw new Error(`${source} holds no revocation list in PEM form (X509 CRL)`);
  const pinned = authorities.map(({ fingerprint, certificate }) => ({
    fingerprint,
    certificate: new x509.X509Certificate(certificate),
  }));
  const lists = new Map<string, RevocationList>();
  for (const block of blocks) {
    const list = parseBlock(block, source);
    const named = pinned.filter(({ certificate }) => certificate.subject === list.issuer);
    if (named.length === 0) continue;
    const fingerprint = await signerOf(list, named);
    if (fingerprint === undefined) {
      const of = JSON.stringify(list.issuer);
      throw new Error(
        `${source}: the list of ${of} was not signed by the authority of that name that is pinned`,
      );
    }
    const made = checked(list, source, wallMs);
    const known = lists.get(fingerprint);
    if (known === undefined || known.fromMs < made.fromMs) lists.set(fingerprint, made);
  }
  if (lists.size === 0) throw new Error(`${source} has no list of an authority that the realm pins`);
  return lists;
};

const parseBlock = (block: string, source: string): x509.X509Crl => {
  try {
    return new x509.X509Crl(block, parseOptions);
  } catch (error) {
    throw new Error(`${source}: a list cannot be read`, { cause: error });
  }
};

const checked = (list: x509.X509Crl, source: string, wallMs: number): RevocationList => {
  const of = JSON.stringify(list.issuer);
  for (const { type, critical } of list.extensions) {
    if (critical && type !== crlNumber && type !== authorityKeyIdentifier)
      throw new Error(`${source}: the list of ${of} is a partial one (critical extension ${type})`);
  }
  const fromMs = list.thisUpdate.getTime();
  const untilMs = list.nextUpdate?.getTime();
  if (untilMs === undefined)
    throw new Error(`${source}: the list of ${of} does not say until when it counts`);
  if (fromMs > wallMs + skewMs)
    throw new Error(`${source}: the list of ${of} is of ${list.thisUpdate.toISOString()}: check the clocks`);
  if (untilMs <= wallMs)
    throw new Error(`${source}: the list of ${of} expired at ${new Date(untilMs).toISOString()}`);
  return {
    serials: new Set(list.entries.map(({ serialNumber }) => serialOf(serialNumber))),
    fromMs,
    untilMs,
  };
};

/** Its fingerprint; undefined: none of them has signed it. */
const signerOf = async (
  list: x509.X509Crl,
  authorities: readonly { readonly fingerprint: string; readonly certificate: x509.X509Certificate }[],
): Promise<string | undefined> => {
  for (const { fingerprint, certificate } of authorities) {
    try {
      if (await list.verify({ publicKey: certificate }, webcrypto)) return fingerprint;
    } catch {
      // A key of another kind than the signature's.
    }
  }
  return undefined;
};

/**
 * Policies and revocations, as commands have made them. Without any such command the cluster decides nothing: each
 * gateway goes by its policy file alone. From the first one on every write is judged here, too, with what is true at
 * its place in the log.
 */
import {
  limits,
  writeRefusal,
  type Failure,
  type Operation,
  type RevocationRecord,
} from '../protocol/index.ts';
import {
  canonicalJson,
  compilePolicies,
  PolicyError,
  Revocations,
  type Policies,
  type PolicyDocument,
  type Revocation,
  type Scope,
  type ScopeLimits,
} from '../scopes/index.ts';
import { assert, unreachable } from './assert.ts';
import type { Counters } from './state-codec.ts';
import type { Access, AccessCommand, CommandResult, Subject } from './types.ts';

/** What the present policies and revocations say of a subject. */
export interface Judgement {
  readonly version: number;
  /** undefined: no policies were applied, so the gateway's answer stands. */
  readonly scope: Scope | undefined;
  readonly limits: ScopeLimits | undefined;
  readonly revoked: boolean;
}

interface AppliedPolicies {
  readonly revision: number;
  readonly document: Uint8Array;
  readonly policies: Policies;
  readonly strictQuotas: boolean;
}

const noBytes = new Uint8Array(0);

/** Where the revocation of this credential is kept: one for each, in an order that is the same everywhere. */
export const revocationKey = (revocation: Revocation): string => {
  const { realm } = revocation;
  switch (revocation.kind) {
    case 'certificate':
      return `certificate/${realm}/${revocation.serial}`;
    case 'principal':
      return `principal/${realm}/${revocation.name}`;
    case 'token':
      return `token/${realm}/${Buffer.from(revocation.tokenId, 'latin1').toString('hex')}`;
    case 'issued_before':
      return revocation.name === undefined
        ? `issued_before/${realm}`
        : `issued_before/${realm}/${revocation.name}`;
    default:
      return unreachable(revocation, 'a revocation');
  }
};

const failed = (code: Failure['code'], message: string): CommandResult => ({
  kind: 'failed',
  failure: { code, message },
});

export const accessRefused = (message: string): CommandResult => failed('ACCESS_REFUSED', message);

/** Throws an Error that says what is wrong with it. */
export const policiesOf = (document: Uint8Array): Policies => {
  const data = JSON.parse(Buffer.from(document).toString('utf8')) as PolicyDocument;
  if (canonicalJson(data) !== Buffer.from(document).toString('utf8'))
    throw new Error('the document is not in the one form of JSON that is compared');
  return compilePolicies(data);
};

const equalBytes = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

export class AccessTable {
  readonly #counters: Counters;
  #applied: AppliedPolicies | undefined;
  /** There was a command about access: from then on the cluster decides, and there is a record of the policies. */
  #active = false;
  readonly #records = new Map<string, RevocationRecord>();
  #lookup: Revocations | undefined;
  /** Of the revocation that ends first; Infinity: none does. */
  #nextEndMs = Infinity;
  #version = 0;
  #current: Access | undefined;
  #documentDirty = false;
  readonly #dirty = new Set<string>();

  /** `revision` of the counters is raised by who calls, for what changes something. */
  constructor(counters: Counters) {
    this.#counters = counters;
  }

  /** Whether the cluster decides over access. */
  get active(): boolean {
    return this.#active;
  }

  get version(): number {
    return this.#version;
  }

  get revision(): number {
    return this.#applied?.revision ?? 0;
  }

  /** As in the command that applies policies. */
  get strictQuotas(): boolean {
    return this.#applied?.strictQuotas ?? false;
  }

  get document(): Uint8Array {
    return this.#applied?.document ?? noBytes;
  }

  /** By key. */
  get revocations(): readonly (readonly [key: string, record: RevocationRecord])[] {
    return [...this.#records].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** The same object until something changes. */
  get current(): Access {
    this.#current ??= {
      version: this.#version,
      revision: this.revision,
      document: this.document,
      policies: this.#applied?.policies,
      revocations: this.revocations.map(([, record]) => record),
    };
    return this.#current;
  }

  // ---- judging ----

  /** What is true of the subject now. `known` is an earlier judgement of the same one. */
  judge(subject: Subject, known: Judgement | undefined): Judgement {
    if (known?.version === this.#version) return known;
    this.#lookup ??= new Revocations([...this.#records.values()].map(({ revocation }) => revocation));
    const scope = this.#applied?.policies.scopeFor(subject.principal);
    return {
      version: this.#version,
      scope,
      limits: scope?.limits,
      revoked: this.#lookup.find(subject.credential) !== undefined,
    };
  }

  /** Why the write may not be; undefined: it may. */
  refusal(judgement: Judgement, operations: readonly Operation[], principal: string): Failure | undefined {
    if (judgement.revoked) return revokedFailure(principal);
    if (judgement.scope === undefined) return undefined;
    return writeRefusal(operations, judgement.scope, principal)?.failure;
  }

  /** Of a change of the cluster; undefined: it may be, or none has said by whom it is. */
  refusalToChange(by: Subject | undefined, verb: 'acl.change' | 'member.change'): CommandResult | undefined {
    if (by === undefined) return undefined;
    const { scope, revoked } = this.judge(by, undefined);
    const principal = `${by.principal.realm}:${by.principal.name}`;
    if (revoked) return { kind: 'failed', failure: revokedFailure(principal) };
    if (scope === undefined || scope.allows(verb, '')) return undefined;
    return failed('PERMISSION_DENIED', `${principal} may not ask for ${verb}: no policy allows it`);
  }

  // ---- changing ----

  /** Whoever asks must be allowed to by the policies that there are; by none, the gateway's word counts. */
  change(command: AccessCommand): CommandResult {
    const refused = this.refusalToChange(command.by, 'acl.change');
    if (refused !== undefined) return refused;
    switch (command.kind) {
      case 'acl_apply':
        return this.#apply(command.document, command.ifRevision, command.strictQuotas ?? false);
      case 'acl_revoke':
        return this.#revoke(command.revocation, command.untilMs);
      case 'acl_restore':
        return this.#restore(command.revocation);
      default:
        return unreachable(command, 'a command about access');
    }
  }

  #apply(document: Uint8Array, ifRevision: number | undefined, allKnowStrict: boolean): CommandResult {
    // Once they are strict everybody in the cluster knows it, also who is away just now.
    const strictQuotas = allKnowStrict || this.strictQuotas;
    // First of all: who lost the answer to this very change asks again with the revision that it replaced.
    const known = this.#applied;
    if (known?.strictQuotas === strictQuotas && equalBytes(known.document, document)) return this.#unchanged;
    if (ifRevision !== undefined && ifRevision !== this.revision) {
      return failed(
        'PRECONDITION_FAILED',
        `the policies are of revision ${this.revision}, not ${ifRevision}: look at what has changed and decide anew`,
      );
    }
    if (document.length > limits.policyDocumentBytesMax)
      return failed('LIMIT_EXCEEDED', `the policies have ${document.length} bytes: make them smaller`);
    let policies: Policies;
    try {
      policies = policiesOf(document);
    } catch (error) {
      // Another text than PolicyError's may differ from one version of Node to the next, and answers must not.
      const why = error instanceof PolicyError ? error.message : 'they are no policy document';
      return failed('CONFIGURATION_INVALID', `the policies are not valid: ${why}`);
    }
    this.#applied = { revision: this.#counters.revision + 1, document, policies, strictQuotas };
    this.#documentDirty = true;
    return this.#changed();
  }

  #revoke(revocation: Revocation, untilMs: number | undefined): CommandResult {
    const { timeMs, revision } = this.#counters;
    if (untilMs !== undefined && untilMs <= timeMs)
      return failed(
        'INVALID_ARGUMENT',
        'the revocation would end before it begins: give a later end, or none',
      );
    const key = revocationKey(revocation);
    const known = this.#records.get(key);
    const both = known === undefined ? { revocation, untilMs } : united(known, { revocation, untilMs });
    if (both === known) return this.#unchanged;
    if (known === undefined && this.#records.size >= limits.revocationsMax) {
      return failed(
        'LIMIT_EXCEEDED',
        `there are ${limits.revocationsMax} revocations: take some back, or revoke all that was issued before an instant`,
      );
    }
    this.#records.set(key, { ...both, revision: revision + 1 });
    this.#nextEndMs = Math.min(this.#nextEndMs, both.untilMs ?? Infinity);
    this.#dirty.add(key);
    return this.#changed();
  }

  #restore(revocation: Revocation): CommandResult {
    const key = revocationKey(revocation);
    if (!this.#records.delete(key)) return this.#unchanged;
    this.#dirty.add(key);
    return this.#changed();
  }

  /** Time has passed: revocations that have ended are forgotten. */
  expire(timeMs: number): void {
    if (timeMs < this.#nextEndMs) return;
    this.#nextEndMs = Infinity;
    for (const [key, { untilMs = Infinity }] of this.#records) {
      if (untilMs > timeMs) this.#nextEndMs = Math.min(this.#nextEndMs, untilMs);
      else if (this.#records.delete(key)) this.#dirty.add(key);
    }
    this.#differs();
  }

  get #unchanged(): CommandResult {
    return { kind: 'access', revision: this.#counters.revision, unchanged: true };
  }

  #changed(): CommandResult {
    if (!this.#active) {
      this.#active = true;
      this.#documentDirty = true;
    }
    this.#differs();
    return { kind: 'access', revision: this.#counters.revision + 1, unchanged: false };
  }

  #differs(): void {
    this.#version += 1;
    this.#lookup = undefined;
    this.#current = undefined;
  }

  /** For another cluster, which goes by its policy files: nothing was applied there and nobody is revoked. */
  clear(): void {
    this.#documentDirty = this.#active;
    this.#active = false;
    this.#applied = undefined;
    for (const key of this.#records.keys()) this.#dirty.add(key);
    this.#records.clear();
    this.#nextEndMs = Infinity;
    this.#differs();
  }

  /** For another cluster: other policies in place of those that were applied, as of the counters' revision. */
  replacePolicies(document: Uint8Array): void {
    assert(this.#applied !== undefined, 'there are no policies that could be replaced');
    const { revision } = this.#counters;
    this.#applied = { ...this.#applied, revision, document, policies: policiesOf(document) };
    this.#documentDirty = true;
    this.#differs();
  }

  // ---- records ----

  /** From disk; false: there is one already. Throws an Error for a document that is none. */
  loadPolicies(revision: number, document: Uint8Array, strictQuotas: boolean): boolean {
    if (this.#active) return false;
    this.#active = true;
    if (revision > 0) this.#applied = { revision, document, policies: policiesOf(document), strictQuotas };
    this.#differs();
    return true;
  }

  /** From disk; false: there is one already. */
  loadRevocation(record: RevocationRecord): boolean {
    const key = revocationKey(record.revocation);
    if (this.#records.has(key)) return false;
    this.#records.set(key, record);
    this.#nextEndMs = Math.min(this.#nextEndMs, record.untilMs ?? Infinity);
    this.#differs();
    return true;
  }

  get size(): number {
    return this.#records.size + (this.#active ? 1 : 0);
  }

  /** Visits every record that changed or went since the last call, once; undefined: it is gone. */
  takeDirty(
    policies: (present: boolean) => void,
    revocation: (key: string, record: RevocationRecord | undefined) => void,
  ): void {
    if (this.#documentDirty) policies(this.#active);
    this.#documentDirty = false;
    for (const key of this.#dirty) revocation(key, this.#records.get(key));
    this.#dirty.clear();
  }
}

const revokedFailure = (principal: string): Failure => ({
  code: 'PERMISSION_DENIED',
  message: `the credential of ${principal} is revoked`,
});

type Said = Pick<RevocationRecord, 'revocation' | 'untilMs'>;

/** Of two for the same credential: `known` itself where the other says no more. Only a restoration makes it less. */
const united = (known: Said, asked: Said): Said => {
  const isLonger = (asked.untilMs ?? Infinity) > (known.untilMs ?? Infinity);
  const isMore =
    known.revocation.kind === 'issued_before' &&
    asked.revocation.kind === 'issued_before' &&
    asked.revocation.atMs > known.revocation.atMs;
  if (!isLonger && !isMore) return known;
  return {
    revocation: isMore ? asked.revocation : known.revocation,
    untilMs: isLonger ? asked.untilMs : known.untilMs,
  };
};

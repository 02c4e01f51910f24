/** What callers say about writes, made into operations. Keys, sizes and numbers are checked with the whole request. */
import { FuturestoreError, defaultContentType, rejectionCodes } from '../protocol/index.ts';
import type { Operation, Preconditions } from '../protocol/index.ts';

/** Conditions of a write; all that are given must hold, else PRECONDITION_FAILED. */
export interface ConditionOptions {
  /** The key's last change has exactly this revision. */
  readonly ifRevision?: number;
  /** The key is in this generation. */
  readonly ifGeneration?: number;
  /** There is no such key. */
  readonly ifAbsent?: boolean;
}

export interface DeclareOptions extends ConditionOptions {
  /** Opens the next generation where the present one is settled. */
  readonly renew?: boolean;
  /** Rejected with DEADLINE_EXCEEDED when still pending this many milliseconds from now. */
  readonly deadlineMs?: number;
  /** Rejected with PRODUCER_LOST when this client is gone for longer than its session's grace. Default true. */
  readonly tied?: boolean;
}

interface SettleOptions extends ConditionOptions {
  /** How many milliseconds it stays fresh; absent: always. */
  readonly ttlMs?: number;
  /** Also where a fresh value is there: opens the next generation. */
  readonly supersede?: boolean;
}

export interface ResolveOptions extends SettleOptions {
  /** Default: plain text for strings, application/json for JSON, application/octet-stream for bytes. */
  readonly contentType?: string;
  /** Shown in no log, listing or error text. */
  readonly sensitive?: boolean;
}

export interface RejectOptions extends SettleOptions {
  /** The producer's own code: [A-Z][A-Z0-9_]{0,63}. Default REJECTED. */
  readonly code?: string;
  /** Why, for people: at most 4 KiB. */
  readonly message?: string;
}

/** Text, bytes, or anything that JSON can hold. At most 1 MiB encoded. */
export type Value = string | Uint8Array | { readonly json: unknown };

const invalid = (message: string): FuturestoreError => new FuturestoreError('INVALID_ARGUMENT', message);

function preconditionsOf(options: ConditionOptions): Preconditions {
  const { ifRevision, ifGeneration, ifAbsent } = options;
  return {
    ...(ifRevision === undefined ? {} : { ifRevision }),
    ...(ifGeneration === undefined ? {} : { ifGeneration }),
    ...(ifAbsent === true ? { ifAbsent: true } : {}),
  };
}

export function declareOperation(key: string, options: DeclareOptions = {}): Operation {
  const { deadlineMs, renew = false, tied = true } = options;
  const deadline = deadlineMs === undefined ? {} : { deadlineMs };
  return { kind: 'declare', key, preconditions: preconditionsOf(options), renew, tied, ...deadline };
}

export function resolveOperation(key: string, value: Value, options: ResolveOptions = {}): Operation {
  const encoded = encodeValue(key, value);
  const { ttlMs, sensitive = false, supersede = false, contentType = encoded.contentType } = options;
  return {
    kind: 'resolve',
    key,
    preconditions: preconditionsOf(options),
    value: encoded.bytes,
    contentType,
    sensitive,
    supersede,
    ...(ttlMs === undefined ? {} : { ttlMs }),
  };
}

export function rejectOperation(key: string, options: RejectOptions = {}): Operation {
  const { code = rejectionCodes.unspecified, message = '', ttlMs, supersede = false } = options;
  const ttl = ttlMs === undefined ? {} : { ttlMs };
  return {
    kind: 'reject',
    key,
    preconditions: preconditionsOf(options),
    rejection: { code, message },
    supersede,
    ...ttl,
  };
}

export function deleteOperation(key: string, options: ConditionOptions = {}): Operation {
  return { kind: 'delete', key, preconditions: preconditionsOf(options) };
}

export function touchOperation(key: string, ttlMs: number, options: ConditionOptions = {}): Operation {
  return { kind: 'touch', key, preconditions: preconditionsOf(options), ttlMs };
}

function encodeValue(
  key: string,
  value: Value,
): { readonly bytes: Uint8Array; readonly contentType: string } {
  if (typeof value === 'string') return { bytes: Buffer.from(value), contentType: defaultContentType };
  // A copy: the caller may reuse its buffer before the write is sent, or sent again.
  if (value instanceof Uint8Array)
    return { bytes: Buffer.from(value), contentType: 'application/octet-stream' };
  if (typeof value !== 'object' || value === null || !('json' in value)) {
    throw invalid(`the value for ${key} must be a string, a Uint8Array or {json: …}`);
  }
  const text: string | undefined = stringify(key, value.json);
  if (text === undefined) throw invalid(`the value for ${key} is nothing that JSON can hold`);
  return { bytes: Buffer.from(text), contentType: 'application/json' };
}

function stringify(key: string, value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    // The cause may quote the value.
    throw invalid(`the value for ${key} is nothing that JSON can hold`);
  }
}

/** Collects the operations of one batch, in order. */
export class BatchBuilder {
  readonly #operations: Operation[] = [];

  get operations(): readonly Operation[] {
    return this.#operations;
  }

  declare(key: string, options?: DeclareOptions): this {
    return this.#add(declareOperation(key, options));
  }

  resolve(key: string, value: Value, options?: ResolveOptions): this {
    return this.#add(resolveOperation(key, value, options));
  }

  reject(key: string, options?: RejectOptions): this {
    return this.#add(rejectOperation(key, options));
  }

  delete(key: string, options?: ConditionOptions): this {
    return this.#add(deleteOperation(key, options));
  }

  touch(key: string, ttlMs: number, options?: ConditionOptions): this {
    return this.#add(touchOperation(key, ttlMs, options));
  }

  #add(operation: Operation): this {
    this.#operations.push(operation);
    return this;
  }
}

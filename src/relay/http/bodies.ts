/** What local programs may send, checked before anything is done: unknown fields are refused by name. */
import * as v from 'valibot';
import {
  declareOperation,
  deleteOperation,
  rejectOperation,
  resolveOperation,
  touchOperation,
} from '../../client/index.ts';
import type { Value } from '../../client/index.ts';
import { FuturestoreError, limits, requestProblem } from '../../protocol/index.ts';
import type { Operation } from '../../protocol/index.ts';

const whole = (least: number) =>
  v.pipe(
    v.number(),
    v.safeInteger('it must be a whole number'),
    v.minValue(least, `it must be at least ${least}`),
  );
const timeoutMs = v.optional(v.pipe(whole(0), v.maxValue(limits.durationMsMax, 'it is more than ten years')));
const key = v.string();
const keys = v.pipe(
  v.array(key),
  v.minLength(1, 'it must name at least one key'),
  v.maxLength(limits.awaitKeysMax, `it names more than ${limits.awaitKeysMax} keys: ask in parts`),
);
const alternatives = v.pipe(
  v.array(keys),
  v.minLength(1, 'it must name at least one alternative'),
  v.maxLength(
    limits.awaitAlternativesMax,
    `it names more than ${limits.awaitAlternativesMax} alternatives: ask in parts`,
  ),
);

/** Half of what is followed at most: one request must not push out all others. */
const followedAtOnceMax = 4_096;

const awaitBody = v.strictObject({
  keys: v.optional(keys),
  any_of: v.optional(alternatives),
  least_generation: v.optional(whole(0)),
  timeout_ms: timeoutMs,
});
const availableBody = v.strictObject({ alternatives, timeout_ms: timeoutMs });
const prefetchBody = v.strictObject({
  keys: v.pipe(v.array(key), v.maxLength(followedAtOnceMax, `it names more than ${followedAtOnceMax} keys`)),
});

const conditions = {
  if_revision: v.optional(whole(0)),
  if_generation: v.optional(whole(0)),
  if_absent: v.optional(v.boolean()),
};
const delivery = {
  wait: v.optional(v.picklist(['queued', 'committed'], 'it must be "queued" or "committed"')),
  timeout_ms: timeoutMs,
};
const settle = {
  key,
  ttl_ms: v.optional(whole(1)),
  supersede: v.optional(v.boolean()),
  ...conditions,
  ...delivery,
};

const resolveBody = v.strictObject({
  ...settle,
  value: v.optional(v.string()),
  value_base64: v.optional(v.string()),
  json: v.optional(v.unknown()),
  content_type: v.optional(v.string()),
  sensitive: v.optional(v.boolean()),
});
const rejectBody = v.strictObject({
  ...settle,
  code: v.optional(v.string()),
  message: v.optional(v.string()),
});
const declareBody = v.strictObject({
  key,
  deadline_ms: v.optional(whole(1)),
  renew: v.optional(v.boolean()),
  tied: v.optional(v.boolean()),
  ...conditions,
  ...delivery,
});
const touchBody = v.strictObject({ key, ttl_ms: whole(1), ...conditions, ...delivery });
const deleteBody = v.strictObject({ key, ...conditions, ...delivery });

const invalid = (message: string): FuturestoreError => new FuturestoreError('INVALID_ARGUMENT', message);

/** The first problem in words; never a value. */
const parsed = <Schema extends v.GenericSchema>(schema: Schema, body: unknown): v.InferOutput<Schema> => {
  const result = v.safeParse(schema, body, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  const own = issue.kind === 'validation' || issue.type === 'picklist';
  if (issue.type === 'strict_object' && issue.expected === 'never')
    throw invalid(`unknown field ${JSON.stringify(path ?? '').slice(0, 100)}: see /v1/openapi.yaml`);
  const what = own ? issue.message : `it must be ${issue.expected ?? 'something else'}`;
  throw invalid(path === null ? `the body is wrong: ${what}` : `${path}: ${what}`);
};

interface Delivery {
  /** Answered when it is safe here, or when the servers have it. */
  readonly wait: 'queued' | 'committed';
  readonly timeoutMs: number | undefined;
}

export interface WriteRequest extends Delivery {
  readonly operation: Operation;
}

type Conditions = {
  readonly if_revision?: number | undefined;
  readonly if_generation?: number | undefined;
  readonly if_absent?: boolean | undefined;
};

/** Without what is undefined, as the client's options want it. */
const given = <T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };

const conditionsOf = (body: Conditions) => ({
  ifRevision: body.if_revision,
  ifGeneration: body.if_generation,
  ifAbsent: body.if_absent,
});

const deliveryOf = (body: {
  readonly wait?: 'queued' | 'committed' | undefined;
  readonly timeout_ms?: number | undefined;
}): Delivery => ({ wait: body.wait ?? 'committed', timeoutMs: body.timeout_ms });

const valueOf = (body: v.InferOutput<typeof resolveBody>): Value => {
  const { value, value_base64: base64 } = body;
  const ways = [value !== undefined, base64 !== undefined, 'json' in body].filter(Boolean).length;
  if (ways !== 1) throw invalid('exactly one of value, value_base64 and json must be given');
  if (value !== undefined) return value;
  if (base64 === undefined) return { json: body.json };
  const bytes = Buffer.from(base64, 'base64');
  // Node skips what is no base64: a value must not be changed in silence.
  if (bytes.toString('base64').replace(/=+$/, '') !== base64.replace(/=+$/, ''))
    throw invalid('value_base64: it is no base64');
  return bytes;
};

const writes = {
  resolve: (body: unknown): WriteRequest => {
    const asked = parsed(resolveBody, body);
    const { key: of, ttl_ms: ttlMs, content_type: contentType, sensitive, supersede } = asked;
    const options = given({ ttlMs, contentType, sensitive, supersede, ...conditionsOf(asked) });
    return { operation: resolveOperation(of, valueOf(asked), options), ...deliveryOf(asked) };
  },
  reject: (body: unknown): WriteRequest => {
    const asked = parsed(rejectBody, body);
    const { key: of, code, message, ttl_ms: ttlMs, supersede } = asked;
    const options = given({ code, message, ttlMs, supersede, ...conditionsOf(asked) });
    return { operation: rejectOperation(of, options), ...deliveryOf(asked) };
  },
  declare: (body: unknown): WriteRequest => {
    const asked = parsed(declareBody, body);
    const { key: of, deadline_ms: deadlineMs, renew, tied } = asked;
    const options = given({ deadlineMs, renew, tied, ...conditionsOf(asked) });
    return { operation: declareOperation(of, options), ...deliveryOf(asked) };
  },
  touch: (body: unknown): WriteRequest => {
    const asked = parsed(touchBody, body);
    const operation = touchOperation(asked.key, asked.ttl_ms, given(conditionsOf(asked)));
    return { operation, ...deliveryOf(asked) };
  },
  delete: (body: unknown): WriteRequest => {
    const asked = parsed(deleteBody, body);
    return { operation: deleteOperation(asked.key, given(conditionsOf(asked))), ...deliveryOf(asked) };
  },
} as const satisfies Record<Operation['kind'], (body: unknown) => WriteRequest>;

export const writeRequest = (kind: Operation['kind'], body: unknown): WriteRequest => writes[kind](body);

export interface AwaitRequest {
  readonly alternatives: readonly (readonly string[])[];
  readonly leastGeneration: number | undefined;
  readonly timeoutMs: number | undefined;
}

export const awaitRequest = (body: unknown): AwaitRequest => {
  const asked = parsed(awaitBody, body);
  if ((asked.keys === undefined) === (asked.any_of === undefined))
    throw invalid('exactly one of keys and any_of must be given');
  const { least_generation: leastGeneration, timeout_ms: limit } = asked;
  return { alternatives: asked.any_of ?? [asked.keys ?? []], leastGeneration, timeoutMs: limit };
};

/** What the client would refuse, where it is not asked at once. */
const checkKeys = (keysAsked: readonly string[]): void => {
  for (const one of keysAsked) {
    const problem = requestProblem({ id: 1, body: { kind: 'get', key: one, stale: false } });
    if (problem !== undefined) throw new FuturestoreError(problem.code, problem.message);
  }
};

export const availableRequest = (body: unknown): Omit<AwaitRequest, 'leastGeneration'> => {
  const asked = parsed(availableBody, body);
  const named = asked.alternatives.flat();
  if (named.length > followedAtOnceMax)
    throw invalid(`alternatives name ${named.length} keys, and may name ${followedAtOnceMax}: ask in parts`);
  checkKeys(named);
  return { alternatives: asked.alternatives, timeoutMs: asked.timeout_ms };
};

export const prefetchRequest = (body: unknown): readonly string[] => {
  const { keys: asked } = parsed(prefetchBody, body);
  checkKeys(asked);
  return asked;
};

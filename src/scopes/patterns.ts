/** Keys and patterns: the grammar, and what a pattern matches, contains and shares with another. */

export type Segment =
  | { readonly kind: 'literal'; readonly text: string }
  /** `*`: exactly one segment. */
  | { readonly kind: 'one' }
  /** A last `**`: one or more segments. */
  | { readonly kind: 'rest' }
  /** `${name}`: exactly one segment, bound before use. Only in policies. */
  | { readonly kind: 'variable'; readonly name: string };

export type BoundSegment = Exclude<Segment, { kind: 'variable' }>;

export interface Pattern {
  readonly text: string;
  readonly segments: readonly Segment[];
  /**
   * What all matching keys start with: the whole leading literal segments, each with its '/'. Of an exact pattern
   * it is the key itself.
   */
  readonly literalPrefix: string;
  /** Without wildcards: a key. */
  readonly exact: boolean;
}

export type ParsedPattern =
  | { readonly ok: true; readonly pattern: Pattern }
  /** The problem is a phrase that goes behind the pattern's name: 'has an empty segment'. */
  | { readonly ok: false; readonly problem: string };

/** The grammar's limits; a key's characters are ASCII, so its length is its size in bytes. */
const keyLengthMax = 512;
const segmentsMax = 16;
const segmentLengthMax = 128;

const one = { kind: 'one' } as const;
const rest = { kind: 'rest' } as const;
const slash = 0x2f;
const emptySegment = "has an empty segment (a '/' at its start, its end, or next to another)";
const variablePattern = /^\$\{([a-z][a-z0-9_]{0,31})\}$/;

/** [A-Za-z0-9._~@:=-], by character code. */
const allowedCharacters: readonly boolean[] = Array.from({ length: 128 }, (_, code) =>
  /[A-Za-z0-9._~@:=-]/.test(String.fromCharCode(code)),
);

/** What is wrong with the text as a key, as a phrase that goes behind its name; undefined: it is a key. */
export function keyProblem(text: string): string | undefined {
  const length = text.length;
  if (length === 0) return 'is empty';
  if (length > keyLengthMax) return `is longer than ${keyLengthMax} characters`;
  let segments = 1;
  let start = 0;
  for (let at = 0; at < length; at += 1) {
    const code = text.charCodeAt(at);
    if (allowedCharacters[code] === true) continue;
    if (code !== slash) return describeCharacter(text, at);
    const problem = segmentExtentProblem(text, start, at);
    if (problem !== undefined) return problem;
    segments += 1;
    start = at + 1;
  }
  if (segments > segmentsMax) return `has ${segments} segments, more than ${segmentsMax}`;
  return segmentExtentProblem(text, start, length);
}

/** Whether the text may stand for one segment of a key. */
export function isSegment(text: string): boolean {
  return !text.includes('/') && keyProblem(text) === undefined;
}

function segmentExtentProblem(text: string, start: number, end: number): string | undefined {
  const length = end - start;
  if (length === 0) return emptySegment;
  if (length > segmentLengthMax) return `has a segment longer than ${segmentLengthMax} characters`;
  const dots =
    text.charCodeAt(start) === 0x2e &&
    (length === 1 || (length === 2 && text.charCodeAt(start + 1) === 0x2e));
  return dots ? "has the segment '.' or '..'" : undefined;
}

function describeCharacter(text: string, at: number): string {
  const code = text.codePointAt(at) ?? 0;
  const printable = code > 0x20 && code < 0x7f;
  const shown = printable
    ? `'${String.fromCodePoint(code)}'`
    : `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
  return `has the character ${shown}, which is none of A-Z a-z 0-9 . _ ~ @ : = - and /`;
}

/**
 * Parses a pattern: a key whose segments may be `*`, whose last one may be `**` and, where `variables` is set, any of
 * which may be `${name}`. The limits of keys apply to the text.
 */
export function parsePattern(text: string, options: { readonly variables?: boolean } = {}): ParsedPattern {
  if (text === '') return { ok: false, problem: 'is empty' };
  if (text.length > keyLengthMax) return { ok: false, problem: `is longer than ${keyLengthMax} characters` };
  const texts = text.split('/');
  if (texts.length > segmentsMax) {
    return { ok: false, problem: `has ${texts.length} segments, more than ${segmentsMax}` };
  }
  const segments: Segment[] = [];
  for (const [index, segmentText] of texts.entries()) {
    const segment = parseSegment(segmentText, index === texts.length - 1, options.variables === true);
    if (typeof segment === 'string') return { ok: false, problem: segment };
    segments.push(segment);
  }
  return { ok: true, pattern: makePattern(segments) };
}

/** The segment, or what is wrong with it. */
function parseSegment(text: string, last: boolean, variables: boolean): Segment | string {
  if (text === '*') return one;
  if (text === '**') return last ? rest : "has '**' before its last segment";
  if (text.includes('*'))
    return `has the segment '${text}': a '*' stands for a whole segment, a last '**' for one or more`;
  if (text.includes('${')) {
    if (!variables) return `has the variable '${text}': variables are for policies only`;
    const name = variablePattern.exec(text)?.[1];
    if (name === undefined) {
      return `has the segment '${text}': a variable is a whole segment, \${name}, its name of a-z, 0-9 and _`;
    }
    return { kind: 'variable', name };
  }
  return (text === '' ? emptySegment : keyProblem(text)) ?? { kind: 'literal', text };
}

function segmentText(segment: Segment): string {
  switch (segment.kind) {
    case 'literal':
      return segment.text;
    case 'one':
      return '*';
    case 'rest':
      return '**';
    case 'variable':
      return `\${${segment.name}}`;
    default:
      return segment satisfies never;
  }
}

function makePattern(segments: readonly Segment[]): Pattern {
  const text = segments.map(segmentText).join('/');
  const exact = segments.every((segment) => segment.kind === 'literal');
  let literalPrefix = '';
  for (const segment of segments) {
    if (segment.kind !== 'literal') break;
    literalPrefix += `${segment.text}/`;
  }
  return { text, segments, literalPrefix: exact ? text : literalPrefix, exact };
}

/** The pattern that matches the key and nothing else. The key must be valid. */
export function exactPattern(key: string): Pattern {
  return makePattern(key.split('/').map((text) => ({ kind: 'literal', text })));
}

/** Whether the pattern, whose variables are bound, matches the key, which must be valid. Allocates nothing. */
export function matches(pattern: Pattern, key: string): boolean {
  if (pattern.exact) return key === pattern.text;
  if (!key.startsWith(pattern.literalPrefix)) return false;
  const { segments } = pattern;
  let index = 0;
  while (segments[index]?.kind === 'literal') index += 1;
  let at = pattern.literalPrefix.length;
  for (; index < segments.length; index += 1) {
    if (at > key.length) return false;
    const segment = segments[index];
    if (segment === undefined || segment.kind === 'variable') return unbound(pattern);
    if (segment.kind === 'rest') return true;
    const slashAt = key.indexOf('/', at);
    const end = slashAt < 0 ? key.length : slashAt;
    if (
      segment.kind === 'literal' &&
      (end - at !== segment.text.length || !key.startsWith(segment.text, at))
    ) {
      return false;
    }
    at = end + 1;
  }
  return at > key.length;
}

/** Matching with a variable still open would decide a permission by accident. */
function unbound(pattern: Pattern): never {
  throw new Error(`The pattern ${pattern.text} has an unbound variable: bind it before matching`);
}

/**
 * The segment, as it is to be compared: a `**` in the last possible place can stand for one segment only. undefined:
 * the pattern has ended. Throws for a variable, which is to be bound first.
 */
export function segmentAt(pattern: Pattern, index: number): BoundSegment | undefined {
  const segment = pattern.segments[index];
  if (segment?.kind === 'variable') return unbound(pattern);
  return segment?.kind === 'rest' && index === segmentsMax - 1 ? one : segment;
}

/**
 * Whether every key that matches `inner` matches `outer`. Exact, except that it does not count with the limit on a
 * key's length: where that alone leaves no key outside, the answer is still false.
 */
export function contains(outer: Pattern, inner: Pattern): boolean {
  for (let index = 0; ; index += 1) {
    const wide = segmentAt(outer, index);
    const narrow = segmentAt(inner, index);
    if (wide === undefined || narrow === undefined) return wide === narrow;
    if (wide.kind === 'rest') return true;
    if (narrow.kind === 'rest') return false;
    if (wide.kind === 'literal' && (narrow.kind !== 'literal' || narrow.text !== wide.text)) return false;
  }
}

/**
 * Whether some key matches both. Exact, except that it does not count with the limit on a key's length: where that
 * alone leaves no common key, the answer is still true.
 */
export function overlaps(a: Pattern, b: Pattern): boolean {
  for (let index = 0; ; index += 1) {
    const left = segmentAt(a, index);
    const right = segmentAt(b, index);
    if (left === undefined || right === undefined) return left === right;
    if (left.kind === 'rest' || right.kind === 'rest') return true;
    if (left.kind === 'literal' && right.kind === 'literal' && left.text !== right.text) return false;
  }
}

/**
 * The pattern with each variable replaced by its value as one literal segment, whatever the value looks like.
 * undefined: a variable has no value, or one that is no legal segment ('', '.', '*', 'a/b', …). The caller decides
 * what that means: an allow must not match, a deny must. The result may be too long for any key to match it.
 */
export function bindVariables(
  pattern: Pattern,
  values: Readonly<Record<string, string>>,
): Pattern | undefined {
  if (!hasVariables(pattern)) return pattern;
  const segments: Segment[] = [];
  for (const segment of pattern.segments) {
    const bound = boundSegment(segment, values);
    if (bound === undefined) return undefined;
    segments.push(bound);
  }
  return makePattern(segments);
}

const hasVariables = ({ segments }: Pattern): boolean =>
  segments.some((segment) => segment.kind === 'variable');

/** undefined: it is a variable without a value that could stand there. */
function boundSegment(segment: Segment, values: Readonly<Record<string, string>>): BoundSegment | undefined {
  if (segment.kind !== 'variable') return segment;
  const value = Object.hasOwn(values, segment.name) ? values[segment.name] : undefined;
  return value === undefined || !isSegment(value) ? undefined : { kind: 'literal', text: value };
}

/**
 * The pattern with `*` for each variable that has no value, or one that is no legal segment, and the others bound: all
 * that it could match, whatever the missing values are.
 */
export function widenVariables(pattern: Pattern, values: Readonly<Record<string, string>> = {}): Pattern {
  if (!hasVariables(pattern)) return pattern;
  return makePattern(pattern.segments.map((segment) => boundSegment(segment, values) ?? one));
}

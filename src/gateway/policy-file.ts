import * as v from 'valibot';
import { isAlias, isMap, isPair, parseDocument, visit } from 'yaml';
import type { Document } from 'yaml';
import { FuturestoreError } from '../protocol/index.ts';
import { problemsText, tlsIdentities, type PolicyDocument } from '../scopes/index.ts';

/** A policy file is written by people; more than this is a mistake. */
const fileCharactersMax = 1024 * 1024;

const text = v.pipe(v.string(), v.nonEmpty('must not be empty'));
const names = v.array(text);

const tlsSchema = v.strictObject({
  issuer: text,
  identity: v.picklist(tlsIdentities),
  crl: v.exactOptional(text),
});

const jwtSchema = v.strictObject({
  issuer: text,
  audience: text,
  algorithms: names,
  keys: text,
  identity: text,
});

const realmSchema = v.strictObject({
  tls: v.exactOptional(tlsSchema),
  jwt: v.exactOptional(jwtSchema),
  vars: v.exactOptional(v.record(v.string(), text)),
});

const limitSchema = v.strictObject({
  pending: v.exactOptional(v.number()),
  keys: v.exactOptional(v.number()),
  subscriptions: v.exactOptional(v.number()),
  requests_in_flight: v.exactOptional(v.number()),
  requests_per_second: v.exactOptional(v.number()),
  stored: v.exactOptional(text),
  connections: v.exactOptional(v.number()),
});

const ruleSchema = v.strictObject({
  allow: v.exactOptional(names),
  deny: v.exactOptional(names),
  limit: v.exactOptional(limitSchema),
  on: v.exactOptional(v.union([text, names], 'must be a pattern or a list of patterns')),
  value_max: v.exactOptional(text),
  ttl_max: v.exactOptional(text),
});

const bindingSchema = v.strictObject({
  realm: v.exactOptional(text),
  principal: v.exactOptional(text),
  where: v.exactOptional(v.record(v.string(), text)),
  policies: names,
});

const documentSchema = v.strictObject({
  realms: v.record(v.string(), realmSchema),
  policies: v.record(v.string(), v.array(ruleSchema)),
  bindings: v.array(bindingSchema),
});

/** The settings that a file may have, to suggest one for a name that is none of them. */
const knownNames = [
  documentSchema,
  realmSchema,
  tlsSchema,
  jwtSchema,
  ruleSchema,
  limitSchema,
  bindingSchema,
].flatMap((schema) => Object.keys(schema.entries));

/**
 * Parses the YAML text of a policy file. The form is checked here, its meaning by `compilePolicies`. Throws
 * CONFIGURATION_INVALID that names the file, the place of every problem, and what is wrong there.
 */
export function parsePolicyFile(source: string, fileName: string): PolicyDocument {
  if (source.length > fileCharactersMax) {
    throw invalid(fileName, [`it has ${source.length} characters: at most ${fileCharactersMax} are allowed`]);
  }
  // Keys stay strings and no tag makes anything but plain data; a key that is there twice is an error.
  const document = parseDocument(source, {
    schema: 'core',
    uniqueKeys: true,
    stringKeys: true,
    prettyErrors: true,
  });
  const faults = [...document.errors, ...document.warnings].map(({ message }) => firstLine(message));
  if (faults.length > 0) throw invalid(fileName, faults);
  const shape = shapeProblem(document);
  if (shape !== undefined) throw invalid(fileName, [shape]);
  return checkPolicyDocument(document.toJS({ maxAliasCount: 0 }), fileName);
}

/** Checks the form of data that may be a policy document. Throws as `parsePolicyFile` does. */
export function checkPolicyDocument(data: unknown, name: string): PolicyDocument {
  const checked = v.safeParse(documentSchema, data);
  if (checked.success) return checked.output;
  throw invalid(name, checked.issues.map(describeIssue));
}

function invalid(fileName: string, problems: readonly string[]): FuturestoreError {
  return new FuturestoreError(
    'CONFIGURATION_INVALID',
    `The policy file ${fileName} is not valid: ${problemsText(problems)}`,
  );
}

const firstLine = (message: string): string => message.split('\n', 1)[0] ?? message;

/** Aliases can make a small file huge, and `<<` or `__proto__` name what nobody meant to be a setting. */
function shapeProblem(document: Document.Parsed): string | undefined {
  if (!isMap(document.contents)) return 'it is empty, or no mapping: it needs realms, policies and bindings';
  let problem: string | undefined;
  visit(document, (_key, node) => {
    if (isAlias(node)) problem = `it has the alias *${node.source}: write the setting out where it is needed`;
    else if (isPair(node) && String(node.key) === '__proto__') problem = 'it has a setting named __proto__';
    return problem === undefined ? undefined : visit.BREAK;
  });
  return problem;
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const steps = issue.path ?? [];
  const place = steps
    .map(({ key }) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
    .join('')
    .slice(1);
  const last = steps.at(-1)?.key;
  const name = typeof last === 'string' ? last : '';
  if (issue.type !== 'strict_object') return `${place}: ${describeValue(issue)}`;
  if (issue.expected === 'never') {
    const nearest = nearestName(name);
    const suggestion = nearest === undefined ? '' : `; did you mean '${nearest}'?`;
    return `${place}: there is no setting '${name}'${suggestion}`;
  }
  if (issue.received === 'undefined') return `${place}: is missing`;
  return `${place === '' ? 'the file' : place}: must be a mapping, not ${issue.received}`;
}

function describeValue(issue: v.BaseIssue<unknown>): string {
  const expected: Readonly<Record<string, string>> = {
    string: 'a text',
    number: 'a number',
    Array: 'a list',
    Object: 'a mapping',
  };
  if (issue.type === 'non_empty' || issue.type === 'union') return issue.message;
  return `must be ${expected[issue.expected ?? ''] ?? issue.expected ?? 'something else'}, not ${issue.received}`;
}

/** The known name that is at most two edits and half of the name away, if there is one. */
function nearestName(name: string): string | undefined {
  let nearest: string | undefined;
  let distance = Math.min(3, Math.floor(name.length / 2) + 1);
  for (const known of knownNames) {
    const edits = editDistance(name.slice(0, 32), known);
    if (edits >= distance) continue;
    nearest = known;
    distance = edits;
  }
  return nearest;
}

/** Levenshtein's, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

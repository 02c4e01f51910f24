/** Profiles: YAML files that name the servers and this client's certificate, so that programs need not. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { FuturestoreError } from '../protocol/index.ts';
import { endpointProblem } from './endpoints.ts';

/** What a profile gives; certificates and key as PEM. */
export interface Profile {
  readonly endpoints: readonly string[];
  readonly ca: string;
  /** Both or none; none only where there is a token. */
  readonly cert?: string;
  readonly key?: string;
  /** The path of the file with this client's token (JWT). */
  readonly tokenFile?: string;
}

const settings = ['endpoints', 'ca', 'cert', 'key', 'token_file'] as const;
type Setting = (typeof settings)[number];

/** A profile is four lines. */
const profileBytesMax = 64 * 1024;
const endpointsMax = 64;

const invalid = (file: string, problems: readonly string[]): FuturestoreError =>
  new FuturestoreError('CONFIGURATION_INVALID', `${file}: ${problems.join('; ')}`);

/**
 * Reads a profile and the files it names; paths in it are relative to it. Every problem, such as an unknown setting, is
 * reported at once with CONFIGURATION_INVALID. `hasToken`: there is a token from elsewhere.
 */
export function loadProfile(file: string, hasToken = false): Profile {
  const document = parseDocument(file);
  const problems = [...document.keys()].filter((name) => !isSetting(name)).map(unknownSetting);
  const endpoints = endpointsOf(document.get('endpoints'), problems);
  const ca = pemOf(file, 'ca', document.get('ca'), problems);
  const tokenFile = tokenFileOf(file, document.get('token_file'), problems);
  const withoutCertificate =
    (hasToken || tokenFile !== undefined) && !document.has('cert') && !document.has('key');
  const pair = withoutCertificate
    ? {}
    : {
        cert: pemOf(file, 'cert', document.get('cert'), problems),
        key: pemOf(file, 'key', document.get('key'), problems),
      };
  if (problems.length > 0) throw invalid(file, problems);
  return { endpoints, ca, ...pair, ...(tokenFile !== undefined && { tokenFile }) };
}

/** Not read here: whoever renews the token writes the file again and again. */
function tokenFileOf(file: string, value: unknown, problems: string[]): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'string' && value !== '') return resolve(dirname(file), value);
  problems.push('token_file must name a file with a token (JWT)');
  return undefined;
}

const isSetting = (name: string): name is Setting => settings.some((setting) => setting === name);

function parseDocument(file: string): ReadonlyMap<string, unknown> {
  const text = readText(file, (problem) => invalid(file, [problem]));
  if (text.length > profileBytesMax) {
    throw invalid(file, [`the file is larger than ${String(profileBytesMax)} bytes: is it a profile?`]);
  }
  let document: unknown;
  try {
    // A YAML map gives a Map, so that no name in the file can mean more than itself.
    document = parse(text, { mapAsMap: true, maxAliasCount: 0, logLevel: 'silent' }) as unknown;
  } catch (error) {
    // The library's text quotes the place over several lines; the first names the problem and its line.
    const [line = ''] = (error instanceof Error ? error.message : String(error)).split('\n');
    throw invalid(file, [`it is no YAML: ${line.replace(/:$/, '')}`]);
  }
  if (!(document instanceof Map)) throw invalid(file, [`it must hold the settings ${settings.join(', ')}`]);
  return new Map([...document].map(([name, value]: [unknown, unknown]) => [String(name), value]));
}

function readText(file: string, failed: (problem: string) => FuturestoreError): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw failed(code === 'ENOENT' ? `there is no such file: ${file}` : `${file} cannot be read (${code})`);
  }
}

function unknownSetting(name: string): string {
  const [nearest] = settings
    .map((setting) => ({ setting, distance: editDistance(name.toLowerCase(), setting) }))
    .sort((a, b) => a.distance - b.distance);
  const hint =
    nearest !== undefined && nearest.distance <= 2
      ? `did you mean "${nearest.setting}"?`
      : `known are ${settings.join(', ')}`;
  return `unknown setting ${JSON.stringify(name.slice(0, 80))}: ${hint}`;
}

function endpointsOf(value: unknown, problems: string[]): readonly string[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > endpointsMax) {
    problems.push(
      `endpoints must be a list of 1 to ${String(endpointsMax)} addresses such as wss://host:7421`,
    );
    return [];
  }
  const endpoints: string[] = [];
  value.forEach((endpoint: unknown, index) => {
    const problem =
      typeof endpoint === 'string' ? endpointProblem(endpoint) : 'it must be text such as wss://host:7421';
    if (problem !== undefined) problems.push(`endpoints[${String(index)}]: ${problem}`);
    else if (typeof endpoint === 'string') endpoints.push(endpoint);
  });
  return endpoints;
}

function pemOf(file: string, setting: Setting, value: unknown, problems: string[]): string {
  if (typeof value !== 'string' || value === '') {
    problems.push(`${setting} must name a PEM file`);
    return '';
  }
  try {
    const text = readText(resolve(dirname(file), value), (problem) => invalid(file, [problem]));
    if (text.includes('-----BEGIN ')) return text;
    problems.push(`${setting}: ${value} is no PEM file`);
  } catch (error) {
    if (!(error instanceof FuturestoreError)) throw error;
    problems.push(`${setting}: ${error.message.slice(file.length + 2)}`);
  }
  return '';
}

/** Insertions, deletions and replacements from one to the other. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < Math.min(a.length, 80); i += 1) {
    const row = [i + 1];
    for (let j = 0; j < b.length; j += 1) {
      const replaced = (previous[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      row.push(Math.min(replaced, (previous[j + 1] ?? 0) + 1, (row[j] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}

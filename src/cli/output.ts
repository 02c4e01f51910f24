/** What is printed: futures as JSON, tables, and texts that are safe on a terminal. */
import type { ClusterStatus, Future, MemberList, MemberStatus, OperationResult } from '../protocol/index.ts';
import type { OutputStream } from './environment.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text that the bytes are; undefined if they are none. */
export const asText = (bytes: Uint8Array): string | undefined => {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
};

const valueAsJson = (value: Uint8Array): { value: string } | { valueBase64: string } => {
  const text = asText(value);
  return text === undefined ? { valueBase64: Buffer.from(value).toString('base64') } : { value: text };
};

const instant = (ms: number): string => new Date(ms).toISOString();

/** A future as JSON. `reveal`: with the value of a sensitive one. */
export const futureAsJson = (future: Future, reveal: boolean): Record<string, unknown> => {
  const value = future.value !== undefined && (reveal || !future.sensitive) ? valueAsJson(future.value) : {};
  return {
    key: future.key,
    state: future.state,
    generation: future.generation,
    revision: future.revision,
    ...value,
    ...(future.state === 'resolved' ? { contentType: future.contentType } : {}),
    sensitive: future.sensitive,
    ...(future.rejection === undefined ? {} : { rejection: future.rejection }),
    producer: future.producer,
    changedAt: instant(future.changedAtMs),
    ...(future.expiresAtMs === undefined ? {} : { expiresAt: instant(future.expiresAtMs) }),
    ...(future.deadlineAtMs === undefined ? {} : { deadlineAt: instant(future.deadlineAtMs) }),
  };
};

export const writtenAsJson = (key: string, result: OperationResult): Record<string, unknown> => ({
  key,
  state: result.state,
  generation: result.generation,
  revision: result.revision,
  unchanged: result.unchanged,
});

/** What a value in a table or a line looks like: one line, without control characters, shortened. */
export const valueAsCell = (future: Future, lengthMax = 200): string => {
  if (future.sensitive) return '(sensitive)';
  if (future.value === undefined) return '';
  const text = asText(future.value);
  if (text === undefined) return `(${future.value.byteLength} bytes)`;
  const escaped = visible(text);
  return escaped.length > lengthMax ? `${escaped.slice(0, lengthMax - 3)}...` : escaped;
};

const shortEscapes: Readonly<Record<string, string>> = {
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\\': '\\\\',
};

/** Text with control and formatting characters escaped. */
export const visible = (text: string): string =>
  text.replaceAll(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\\]/gu,
    (character) => shortEscapes[character] ?? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );

const units: readonly (readonly [string, number])[] = [
  ['d', 24 * 3600 * 1000],
  ['h', 3600 * 1000],
  ['m', 60 * 1000],
  ['s', 1000],
];

/** A span of time to one unit, rounded down: '3h', '12s', '0s'. Clocks differ a little: less than nothing is nothing. */
const roughly = (ms: number): string => {
  for (const [unit, size] of units) if (ms >= size) return `${Math.floor(ms / size)}${unit}`;
  return '0s';
};

/**
 * Columns with two spaces between, written row by row: the widths are those of the first rows, and only grow. The
 * last column is not padded.
 */
export class Table {
  readonly #output: OutputStream;
  readonly #widths: number[];
  #headings: readonly string[] | undefined;

  constructor(output: OutputStream, headings: readonly string[]) {
    this.#output = output;
    this.#headings = headings;
    this.#widths = headings.map((heading) => heading.length);
  }

  write(rows: readonly (readonly string[])[]): void {
    for (const row of rows) {
      row.forEach(
        (cell, column) => (this.#widths[column] = Math.max(this.#widths[column] ?? 0, cell.length)),
      );
    }
    if (this.#headings !== undefined) {
      this.#output.write(this.#line(this.#headings));
      this.#headings = undefined;
    }
    if (rows.length > 0) this.#output.write(rows.map((row) => this.#line(row)).join(''));
  }

  #line(row: readonly string[]): string {
    const cells = row.map((cell, column) => cell.padEnd(this.#widths[column] ?? 0));
    return `${cells.join('  ').trimEnd()}\n`;
  }
}

/** A future's row of `list`. */
export const futureRow = (future: Future, nowMs: number, withValue: boolean): string[] => [
  future.key,
  future.state,
  String(future.generation),
  String(future.revision),
  roughly(nowMs - future.changedAtMs),
  endOf(future, nowMs),
  ...(withValue
    ? [future.rejection === undefined ? valueAsCell(future) : visible(rejectionCell(future.rejection))]
    : []),
];

const rejectionCell = ({ code, message }: { readonly code: string; readonly message: string }): string =>
  `${code}: ${message}`;

const endOf = (future: Future, nowMs: number): string => {
  if (future.state === 'expired') return 'expired';
  const atMs = future.state === 'pending' ? future.deadlineAtMs : future.expiresAtMs;
  if (atMs === undefined) return '-';
  return atMs <= nowMs ? 'now' : `in ${roughly(atMs - nowMs)}`;
};

export const futureHeadings = (withValue: boolean): string[] => [
  'KEY',
  'STATE',
  'GENERATION',
  'REVISION',
  'AGE',
  'ENDS',
  ...(withValue ? ['VALUE'] : []),
];

/** The member that leads, as far as the one who answered knows. */
export const leaderOf = (status: ClusterStatus): MemberStatus | undefined =>
  status.members.find(({ role }) => role === 'leader');

/** Who answers is there, whatever its version says of itself. */
const heardCell = ({ id, heardMsAgo }: MemberStatus, answering: number): string => {
  if (heardMsAgo === undefined) return id === answering ? 'now' : 'never';
  return heardMsAgo < 1000 ? 'now' : `${roughly(heardMsAgo)} ago`;
};

const drainedCell = ({ draining }: { readonly draining?: true }): string =>
  draining === true ? ', draining' : '';

/** The status for people. */
export const writeStatus = (output: OutputStream, status: ClusterStatus): void => {
  const answering =
    status.members.find(({ id }) => id === status.serverId)?.name ?? `server ${status.serverId}`;
  output.write(
    `cluster ${status.clusterId}  revision ${status.revision}  leader ${leaderOf(status)?.name ?? 'none'}  answered by ${answering}\n`,
  );
  const headings = [
    'NAME',
    'ROLE',
    'TERM',
    'COMMIT',
    'APPLIED',
    'LAG',
    'KEYS',
    'CONNECTIONS',
    'HEARD',
    'VERSION',
    'AGENTS',
  ];
  new Table(output, headings).write(
    status.members.map((member) => [
      visible(member.name),
      member.role === '' ? 'unknown' : `${visible(member.role)}${drainedCell(member)}`,
      String(member.term),
      String(member.commitIndex),
      String(member.appliedIndex),
      String(member.lag),
      String(member.keys),
      String(member.connections),
      heardCell(member, status.serverId),
      visible(member.version),
      visible(member.agentsUrl),
    ]),
  );
};

/** The members for people. */
export const writeMembers = (output: OutputStream, { members, changePending, leader }: MemberList): void => {
  const leading = members.find(({ id }) => id === leader)?.name;
  const change = changePending ? '  a change is under way' : '';
  output.write(`leader ${leading === undefined ? 'none' : visible(leading)}${change}\n`);
  const headings = ['ID', 'NAME', 'STANDING', 'WANTED', 'REACHABLE', 'LAG', 'PEERS', 'AGENTS'];
  new Table(output, headings).write(
    members.map((member) => [
      String(member.id),
      visible(member.name),
      `${member.standing}${drainedCell(member)}`,
      member.wanted,
      member.reachable ? 'yes' : 'no',
      String(member.lag),
      visible(member.peersAddress),
      visible(member.agentsUrl),
    ]),
  );
};

/** '512 B', '3.4 MiB'. */
export const amountOfBytes = (bytes: number): string => {
  if (bytes < 1024) return `${bytes} B`;
  const unit = bytes < 1024 ** 2 ? 'KiB' : bytes < 1024 ** 3 ? 'MiB' : 'GiB';
  const size = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }[unit];
  return `${(bytes / size).toFixed(1)} ${unit}`;
};

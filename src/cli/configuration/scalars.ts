/** The kinds of values that settings have: what is written in the file, checked and brought into the program's units. */
import * as v from 'valibot';
import {
  isAgentsUrl,
  isMemberName,
  isNetwork,
  parseDuration,
  parseHostAndPort,
} from '../../protocol/index.ts';
import type { HostAndPort } from '../../protocol/index.ts';
import { parseSize } from '../../scopes/index.ts';

export { formatHostAndPort, parseHostAndPort } from '../../protocol/index.ts';
export type { HostAndPort } from '../../protocol/index.ts';

const shown = (input: unknown): string => {
  // What a file holds may have a toString of its own, which is no function.
  if (typeof input === 'object' && input !== null)
    return Array.isArray(input) ? 'a list' : 'a group of settings';
  const text = typeof input === 'string' ? JSON.stringify(input) : String(input);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
};

const text = (expected: string) => v.string((issue) => `must be ${expected}, got ${shown(issue.input)}`);

/** `portMin` 0: any free port. */
const address = (expected: string, portMin: number) =>
  v.pipe(
    text(expected),
    v.rawTransform(({ dataset, addIssue, NEVER }): HostAndPort => {
      const parsed = parseHostAndPort(dataset.value);
      if (parsed !== undefined && parsed.port >= portMin) return parsed;
      addIssue({ message: `must be ${expected}, got ${shown(dataset.value)}` });
      return NEVER;
    }),
  );

/** Where to listen. Port 0: any free one. */
export const listenAddress = () => address('an address to listen on, written host:port', 0);

/** Where another server is reached. */
export const peerAddress = () => address('an address, written host:port', 1);

/** wss://host:port, no path. */
export const agentsUrl = () => {
  const expected = 'an address for agents, written wss://host:port';
  return v.pipe(
    text(expected),
    v.check(isAgentsUrl, (issue) => `must be ${expected}, got ${shown(issue.input)}`),
  );
};

/** An IP address, or a network in CIDR notation. */
export const network = () => {
  const expected = 'an IP address or a network, written like 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32';
  return v.pipe(
    text(expected),
    v.check(isNetwork, (issue) => `must be ${expected}, got ${shown(issue.input)}`),
  );
};

/** Of web pages, exactly as browsers send it. */
export const origin = () => {
  const expected = 'the origin of a web page, written https://host or https://host:port';
  return v.pipe(
    text(expected),
    v.check(isOrigin, (issue) => `must be ${expected}, got ${shown(issue.input)}`),
  );
};

const isOrigin = (value: string): boolean =>
  /^https?:/.test(value) && URL.canParse(value) && new URL(value).origin === value;

export const file = (expected: string) =>
  v.pipe(
    text(expected),
    v.check(
      (value) => value !== '' && !value.includes('\0'),
      (issue) => `must be ${expected}, got ${shown(issue.input)}`,
    ),
  );

/** 16 bytes as 32 lower-case hex digits. */
export const clusterId = () => {
  const expected = '32 lower-case hex digits in quotes';
  return v.pipe(
    text(expected),
    v.regex(/^[0-9a-f]{32}$/, (issue) => `must be ${expected}, got ${shown(issue.input)}`),
  );
};

/** What a certificate's CN names: one segment of the grammar of keys. */
export const memberName = () => {
  const expected =
    "a server's name: 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit";
  return v.pipe(
    text(expected),
    v.check(isMemberName, (issue) => `must be ${expected}, got ${shown(issue.input)}`),
  );
};

export const integer = (least: number, most: number) => {
  const message = (issue: { readonly input: unknown }): string =>
    `must be a whole number from ${least} to ${most}, got ${shown(issue.input)}`;
  return v.pipe(v.number(message), v.integer(message), v.minValue(least, message), v.maxValue(most, message));
};

/** A whole number, or the word `auto`. */
export const integerOrAuto = (least: number, most: number) => {
  const message = (issue: { readonly input: unknown }): string =>
    `must be auto or a whole number from ${least} to ${most}, got ${shown(issue.input)}`;
  return v.pipe(
    v.union([v.literal('auto'), v.number()], message),
    v.check(
      (value) => value === 'auto' || (Number.isInteger(value) && value >= least && value <= most),
      message,
    ),
  );
};

/** Milliseconds. `least` and `most` are written as in the file. */
export const duration = (least: string, most: string) => {
  const expected = `a duration from ${least} to ${most}, written like 500ms, 30s, 5m or 24h`;
  const leastMs = parseDuration(least) ?? 0;
  const mostMs = parseDuration(most) ?? Number.MAX_SAFE_INTEGER;
  return v.pipe(
    text(expected),
    v.rawTransform(({ dataset, addIssue, NEVER }): number => {
      const parsed = parseDuration(dataset.value);
      if (parsed !== undefined && parsed >= leastMs && parsed <= mostMs) return parsed;
      addIssue({ message: `must be ${expected}, got ${shown(dataset.value)}` });
      return NEVER;
    }),
  );
};

/** Bytes. `least` and `most` are written as in the file. */
export const size = (least: string, most: string) => {
  const expected = `a size from ${least} to ${most}, written like 512KiB, 64MiB or 1GiB`;
  const leastBytes = parseSize(least) ?? 0;
  const mostBytes = parseSize(most) ?? Number.MAX_SAFE_INTEGER;
  return v.pipe(
    text(expected),
    v.rawTransform(({ dataset, addIssue, NEVER }): number => {
      const parsed = parseSize(dataset.value);
      if (parsed !== undefined && parsed >= leastBytes && parsed <= mostBytes) return parsed;
      addIssue({ message: `must be ${expected}, got ${shown(dataset.value)}` });
      return NEVER;
    }),
  );
};

export const yesOrNo = () => v.boolean((issue) => `must be true or false, got ${shown(issue.input)}`);

/** One of a few words. */
export const choice = <const Options extends readonly [string, ...string[]]>(options: Options) =>
  v.picklist(options, (issue) => `must be one of ${options.join(', ')}, got ${shown(issue.input)}`);

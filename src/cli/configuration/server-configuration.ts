/** server.yaml: from its text to a checked configuration, or to all its problems at once. */
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { parseDocument } from 'yaml';
import { defaultGatewayThreads } from '../../gateway/index.ts';
import { FuturestoreError } from '../../protocol/index.ts';
import type { HostAndPort } from './scalars.ts';
import type { ServerSettings } from './settings.ts';
import { serverSettings } from './settings.ts';
import { describeSettings, placeOf, unknownSettings } from './schema-walk.ts';

interface MemberConfiguration {
  readonly id: number;
  readonly name: string;
  /** Where the other servers reach it. */
  readonly peers: HostAndPort;
  /** wss://host:port: where agents reach it. */
  readonly agents: string;
}

/** All of one server's settings. Paths are absolute, durations in milliseconds, sizes in bytes. */
export interface ServerConfiguration {
  readonly file: string;
  readonly clusterId: string;
  /** Sorted by id. */
  readonly members: readonly MemberConfiguration[];
  /** The one of `members` that this server is. */
  readonly self: MemberConfiguration;
  readonly dataDirectory: string;
  /** With an empty data directory it waits to be given the cluster's state, instead of beginning a new cluster. */
  readonly join: boolean;
  readonly agents: {
    readonly listen: HostAndPort;
    readonly cert: string;
    readonly key: string;
    /** wss://host:port; none: every server's own. */
    readonly advertise: readonly string[];
    /** Load balancers that send PROXY headers: IP addresses and networks. */
    readonly proxies: readonly string[];
    /** 0: none. */
    readonly connectionMaxAgeMs: number;
    /** Of the web pages that may connect. */
    readonly origins: readonly string[];
  };
  readonly peers: {
    readonly listen: HostAndPort;
    readonly ca: string;
    readonly cert: string;
    readonly key: string;
  };
  readonly adminListen: HostAndPort;
  readonly policyFile: string;
  readonly electionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly logLevel: ServerSettings['log']['level'];
  readonly logRetainBytes: number;
  readonly stopGraceMs: number;
  readonly connectionsMax: number;
  readonly unauthenticatedConnectionsMax: number;
  /** 0: agents are served in the main thread. */
  readonly gatewayThreads: number;
}

/** Larger than any real one; keeps a wrong path from being read into memory. */
const configurationBytesMax = 1024 * 1024;
/** A file of another kind has one problem per line: the first ones tell enough. */
const problemsShownMax = 20;

const invalid = (file: string, problems: readonly string[]): FuturestoreError => {
  const shown = problems.slice(0, problemsShownMax);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  return new FuturestoreError('CONFIGURATION_INVALID', `${file}: ${shown.join('; ')}`);
};

const parseYaml = (text: string, file: string): unknown => {
  if (Buffer.byteLength(text) > configurationBytesMax)
    throw invalid(file, [`larger than ${configurationBytesMax} bytes`]);
  try {
    const document = parseDocument(text, { prettyErrors: true, uniqueKeys: true, logLevel: 'silent' });
    if (document.errors.length > 0) {
      throw invalid(
        file,
        document.errors.map((error) => error.message.split('\n', 1)[0] ?? 'not valid YAML'),
      );
    }
    // No setting needs aliases, and expanding them is how a small file becomes a large one.
    return document.toJS({ maxAliasCount: 0 }) as unknown;
  } catch (error) {
    if (error instanceof FuturestoreError) throw error;
    throw invalid(file, [
      error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : 'not valid YAML',
    ]);
  }
};

const duplicates = (values: readonly string[]): string[] => [
  ...new Set(values.filter((value, index) => values.indexOf(value) !== index)),
];

/** What no single setting can tell. */
const contradictions = (settings: ServerSettings): string[] => {
  const { members } = settings.cluster;
  const problems: string[] = [];
  if (!members.some(({ id }) => id === settings.member)) {
    problems.push(
      `member: ${settings.member} is none of cluster.members (${members.map(({ id }) => id).join(', ')})`,
    );
  }
  const repeated = {
    ids: duplicates(members.map(({ id }) => String(id))),
    names: duplicates(members.map(({ name }) => name)),
    'addresses for peers': duplicates(members.map(({ peers }) => `${peers.host}:${peers.port}`)),
    'addresses for agents': duplicates(members.map(({ agents }) => agents)),
  };
  for (const [what, values] of Object.entries(repeated)) {
    if (values.length > 0)
      problems.push(`cluster.members: ${what} must differ, repeated: ${values.join(', ')}`);
  }
  if (settings.heartbeat_interval * 3 > settings.election_timeout) {
    problems.push(
      `heartbeat_interval: ${settings.heartbeat_interval}ms must be at most a third of election_timeout (${settings.election_timeout}ms), or one lost heartbeat brings an election`,
    );
  }
  const listens = [settings.agents.listen, settings.peers.listen, settings.admin.listen];
  const taken = duplicates(
    listens.filter(({ port }) => port !== 0).map(({ host, port }) => `${host}:${port}`),
  );
  if (taken.length > 0)
    problems.push(`agents, peers and admin must listen on different ports, repeated: ${taken.join(', ')}`);
  return problems;
};

const resolved = (settings: ServerSettings, file: string): ServerConfiguration => {
  const beside = (path: string): string => resolve(dirname(file), path);
  const members = settings.cluster.members.toSorted((a, b) => a.id - b.id);
  const self = members.find(({ id }) => id === settings.member);
  if (self === undefined) throw new RangeError(`member ${settings.member} must have been checked to exist`);
  return {
    file,
    clusterId: settings.cluster.id,
    members,
    self,
    dataDirectory: beside(settings.data),
    join: settings.join,
    agents: {
      listen: settings.agents.listen,
      cert: beside(settings.agents.cert),
      key: beside(settings.agents.key),
      advertise: settings.agents.advertise,
      proxies: settings.agents.proxy_protocol.trusted,
      connectionMaxAgeMs: settings.agents.connection_max_age,
      origins: settings.agents.origins,
    },
    peers: {
      listen: settings.peers.listen,
      ca: beside(settings.peers.ca),
      cert: beside(settings.peers.cert),
      key: beside(settings.peers.key),
    },
    adminListen: settings.admin.listen,
    policyFile: beside(settings.policy),
    electionTimeoutMs: settings.election_timeout,
    heartbeatIntervalMs: settings.heartbeat_interval,
    logLevel: settings.log.level,
    logRetainBytes: settings.log_retain,
    stopGraceMs: settings.stop_grace,
    connectionsMax: settings.limits.connections,
    unauthenticatedConnectionsMax: settings.limits.unauthenticated_connections,
    gatewayThreads: settings.gateway.workers === 'auto' ? defaultGatewayThreads() : settings.gateway.workers,
  };
};

/**
 * Reads the text of a server.yaml; `file` is where it is from, and what its paths are relative to.
 * Throws CONFIGURATION_INVALID, naming every problem with its place.
 */
export const parseServerConfiguration = (text: string, file: string): ServerConfiguration => {
  const tree = parseYaml(text, file);
  const unknown = unknownSettings(serverSettings, tree);
  const parsed = v.safeParse(serverSettings, tree);
  const wrong = (parsed.issues ?? []).map((issue) => {
    const place = placeOf(issue);
    const missing = issue.input === undefined;
    // valibot's own words for a missing entry name its type, not the setting.
    return `${place === '' ? 'the file' : place}: ${missing ? 'is missing' : issue.message}`;
  });
  if (!parsed.success) throw invalid(file, [...unknown, ...wrong]);
  const problems = [...unknown, ...contradictions(parsed.output)];
  if (problems.length > 0) throw invalid(file, problems);
  return resolved(parsed.output, resolve(file));
};

/** The list of settings as text. */
export const settingsAsText = (): string => {
  const settings = describeSettings(serverSettings);
  return settings
    .map(({ place, description, defaultValue }) => {
      const standing = defaultValue === undefined ? 'required' : `default ${defaultValue}`;
      return `${place}  (${standing})\n    ${description}\n`;
    })
    .join('');
};

interface SettingAsData {
  readonly setting: string;
  readonly required: boolean;
  readonly default: string | null;
  readonly meaning: string;
}

/** The list of settings as plain data. */
export const settingsAsData = (): readonly SettingAsData[] =>
  describeSettings(serverSettings).map(({ place, description, defaultValue }) => ({
    setting: place,
    required: defaultValue === undefined,
    default: defaultValue ?? null,
    meaning: description,
  }));

/** `futurestore dev`: a whole cluster of real server processes on this machine. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import type { ClusterStatus } from '../protocol/index.ts';
import type { InitOptions } from './authority/cluster-directory.ts';
import { initCluster, isInitialized } from './authority/cluster-directory.ts';
import { adminProfileOf } from './authority/files.ts';
import { formatHostAndPort } from './configuration/scalars.ts';
import type { HostAndPort } from './configuration/scalars.ts';
import type { ServerConfiguration } from './configuration/server-configuration.ts';
import { parseServerConfiguration } from './configuration/server-configuration.ts';
import { thisMachine } from './dev-machine.ts';
import type { Machine, ServerProcess } from './dev-machine.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { oneLine } from './exit-codes.ts';
import { leaderOf, Table } from './output.ts';
import { defaultDirectory } from './profile-location.ts';
import { endsRemoved } from './removed-server.ts';

/** Starting three servers takes about a second; ten times that on a machine that is busy. */
const readyTimeoutMs = 30_000;
const pollIntervalMs = 200;
const pollTimeoutMs = 2000;
/** A server says good-bye to its agents for 5 s, hands over and closes; one that takes so long hangs. */
const stopTimeoutMs = 30_000;

interface RunningServer {
  readonly configuration: ServerConfiguration;
  readonly logFile: string;
  readonly process: ServerProcess;
}

const readServers = (directory: string): ServerConfiguration[] => {
  const names = readdirSync(directory).filter((name) => /^server-[0-9]+$/.test(name));
  if (names.length === 0)
    throw new Error(`${directory} has an admin.yaml but no server-N: move it away and run dev again`);
  return names
    .map((name) => join(directory, name, 'server.yaml'))
    .map((file) => parseServerConfiguration(readFileSync(file, 'utf8'), file))
    .sort((a, b) => a.self.id - b.self.id);
};

const tellRemoved = (
  environment: CommandEnvironment,
  { self, file }: ServerConfiguration,
  why = '',
): void => {
  environment.stderr.write(
    `futurestore: ${self.name} (server ${self.id}) is no member of the cluster any more${why}: ${dirname(file)} is no longer used, remove it\n`,
  );
};

/**
 * Those that may be members. The cluster gives an address to a new member only when the one that had it is to leave, and
 * greater ids to later ones; both started here, each would keep the other from listening.
 */
const withoutReplaced = (
  environment: CommandEnvironment,
  servers: readonly ServerConfiguration[],
): ServerConfiguration[] =>
  servers.filter((server) => {
    const address = formatHostAndPort(server.self.peers);
    const successor = servers.findLast(({ self }) => formatHostAndPort(self.peers) === address);
    if (successor === undefined || successor === server) return true;
    tellRemoved(environment, server, `, server ${successor.self.id} has its address`);
    return false;
  });

/** Connects only for as long as one question takes: what fails is no answer. */
const askStatus = async (
  environment: CommandEnvironment,
  profile: string,
): Promise<ClusterStatus | undefined> => {
  const client: CommandClient = await environment.connect(profile);
  try {
    return await client.status({ timeoutMs: pollTimeoutMs });
  } catch {
    return undefined;
  } finally {
    await client.close();
  }
};

const refuseIfTaken = async (
  environment: CommandEnvironment,
  machine: Machine,
  directory: string,
  servers: readonly ServerConfiguration[],
): Promise<void> => {
  const taken: string[] = [];
  for (const { self, agents, peers, adminListen } of servers) {
    const addresses: readonly (readonly [string, HostAndPort])[] = [
      ['agents', agents.listen],
      ['peers', peers.listen],
      ['admin', adminListen],
    ];
    for (const [what, address] of addresses) {
      if (!(await machine.isFree(address)))
        taken.push(`${formatHostAndPort(address)} (${what} of ${self.name})`);
    }
  }
  if (taken.length === 0) return;
  const profile = adminProfileOf(directory);
  const status = await askStatus(environment, profile);
  if (status?.clusterId === servers[0]?.clusterId) {
    throw new Error(
      `the cluster in ${directory} is already running: see futurestore status --profile ${profile}`,
    );
  }
  throw new Error(
    `cannot listen on ${taken.join(', ')}: stop what uses it (perhaps this very cluster, started before), ` +
      `or make a cluster on other ports with futurestore dev --dir OTHER --port N`,
  );
};

/** Waits until a leader is known and every server has been heard of, or for as long as it may take. */
const whenReady = async (
  environment: CommandEnvironment,
  machine: Machine,
  running: readonly RunningServer[],
  profile: string,
  interruption: AbortSignal,
): Promise<ClusterStatus | undefined> => {
  const deaths: string[] = [];
  for (const { configuration, process, logFile } of running) {
    void process.ended.then((how) => {
      const last = machine.lastLine(logFile);
      if (endsRemoved(last)) return;
      deaths.push(
        `${configuration.self.name} ended with ${how}${last === undefined ? '' : `: ${oneLine(last)}`} (all of it: ${logFile})`,
      );
    });
  }
  const untilMs = environment.now() + readyTimeoutMs;
  let status: ClusterStatus | undefined;
  while (!interruption.aborted) {
    const [death] = deaths;
    if (death !== undefined) throw new Error(`the cluster did not start: ${death}`);
    status = (await askStatus(environment, profile)) ?? status;
    const everybody = status?.members.every(({ role }) => role !== '' && role !== 'unreachable') === true;
    if (status !== undefined && leaderOf(status) !== undefined && everybody) return status;
    if (environment.now() > untilMs) break;
    await machine.pause(pollIntervalMs, interruption);
  }
  if (interruption.aborted || (status !== undefined && leaderOf(status) !== undefined)) return status;
  throw new Error(
    `the cluster has no leader after ${readyTimeoutMs / 1000} s: see the log files ${running.map(({ logFile }) => logFile).join(', ')}`,
  );
};

const describe = (
  environment: CommandEnvironment,
  directory: string,
  running: readonly RunningServer[],
  status: ClusterStatus,
): void => {
  const { stdout, workingDirectory } = environment;
  new Table(stdout, ['SERVER', 'ROLE', 'AGENTS', 'ADMIN', 'PID', 'LOG']).write(
    running.map(({ configuration: { self, adminListen }, process, logFile }) => [
      self.name,
      status.members.find(({ id }) => id === self.id)?.role ?? 'no member',
      self.agents,
      `http://${formatHostAndPort(adminListen)}`,
      String(process.pid),
      relative(workingDirectory, logFile),
    ]),
  );
  const isDefault = directory === join(workingDirectory, defaultDirectory);
  const profile = isDefault ? '' : ` --profile ${relative(workingDirectory, adminProfileOf(directory))}`;
  stdout.write(
    `\nIn another terminal, wait for a value, give it, and look at the cluster:\n` +
      `  npx futurestore await nodes/web1/out/url${profile}\n` +
      `  npx futurestore resolve nodes/web1/out/url http://web1:8080${profile}\n` +
      `  npx futurestore status${profile}\n\nCtrl-C stops all servers.\n`,
  );
};

const stopAll = async (
  environment: CommandEnvironment,
  machine: Machine,
  running: readonly RunningServer[],
): Promise<void> => {
  for (const { process } of running) process.signal('SIGTERM');
  const giveUp = new AbortController();
  const all = Promise.all(running.map(({ process }) => process.ended));
  const stopped = await Promise.race([
    all.then(() => true),
    machine.pause(stopTimeoutMs, giveUp.signal).then(() => false),
  ]);
  giveUp.abort();
  if (stopped) return;
  environment.stderr.write(
    `futurestore: some servers did not stop within ${stopTimeoutMs / 1000} s and are killed\n`,
  );
  for (const { process } of running) process.signal('SIGKILL');
  await all;
};

/** Resolves when it is interrupted; rejects when no server is left. */
const whileRunning = async (
  environment: CommandEnvironment,
  machine: Machine,
  running: readonly RunningServer[],
  interruption: AbortSignal,
): Promise<void> => {
  let stopping = false;
  const deaths = running.map(async ({ configuration, process, logFile }) => {
    const how = await process.ended;
    if (stopping) return;
    if (endsRemoved(machine.lastLine(logFile))) tellRemoved(environment, configuration);
    else
      environment.stderr.write(`futurestore: ${configuration.self.name} ended with ${how}: see ${logFile}\n`);
  });
  const interrupted = new Promise<'interrupted'>((resolve) => {
    if (interruption.aborted) resolve('interrupted');
    interruption.addEventListener('abort', () => resolve('interrupted'));
  });
  const end = await Promise.race([interrupted, Promise.all(deaths)]);
  stopping = true;
  if (end !== 'interrupted')
    throw new Error('all servers have ended: see their log files, then run dev again');
};

/** Runs until it is interrupted, then stops all servers. `countChosen`: the user asked for this many servers. */
export const runDevelopmentCluster = async (
  environment: CommandEnvironment,
  plan: InitOptions,
  countChosen: boolean,
  machine: Machine = thisMachine,
): Promise<void> => {
  const { directory } = plan;
  const interruption = environment.interruption();
  if (!isInitialized(directory)) {
    const made = await initCluster(plan);
    environment.stdout.write(`Made cluster ${made.clusterId} in ${directory}.\n`);
  }
  const servers = withoutReplaced(environment, readServers(directory));
  if (countChosen && servers.length !== plan.servers) {
    environment.stderr.write(
      `futurestore: the cluster in ${directory} has ${servers.length} servers, not ${plan.servers}: use another --dir for another cluster\n`,
    );
  }
  await refuseIfTaken(environment, machine, directory, servers);
  const running = servers.map((configuration): RunningServer => {
    const logFile = join(dirname(configuration.file), 'server.log');
    return { configuration, logFile, process: machine.launch(configuration.file, logFile) };
  });
  try {
    const status = await whenReady(environment, machine, running, adminProfileOf(directory), interruption);
    if (status !== undefined && !interruption.aborted) describe(environment, directory, running, status);
    await whileRunning(environment, machine, running, interruption);
  } finally {
    await stopAll(environment, machine, running);
  }
};

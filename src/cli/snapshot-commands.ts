/** snapshot save|verify|restore. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { SnapshotFileSummary } from '../storage/index.ts';
import type { PlanOptions } from './cluster-commands.ts';
import { plannedCluster, withPlan } from './cluster-commands.ts';
import type { ClientOptions } from './command-options.ts';
import { clientCommand, timeoutOf, withClient, writeJson } from './command-options.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { hasErrorCode } from './member-changes.ts';
import { amountOfBytes } from './output.ts';
import type { RestoredCluster } from './restore-cluster.ts';

interface SaveOptions extends ClientOptions {
  readonly force?: true;
}

const writeSummary = (
  environment: CommandEnvironment,
  file: string,
  summary: SnapshotFileSummary,
  json: boolean,
  said: string,
): void => {
  const { savedAtMs, ...rest } = summary;
  const savedAt = new Date(savedAtMs).toISOString();
  if (json) {
    writeJson(environment, { file, ...rest, savedAt });
    return;
  }
  const { clusterId, epoch, revision, records, bytes } = summary;
  environment.stdout.write(
    `${file} ${said}: revision ${revision} of cluster ${clusterId} (epoch ${epoch}), saved at ${savedAt}, ${records} records, ${amountOfBytes(bytes)}\n`,
  );
};

/** A server that stops takes its snapshots with it; more than one in turn is no rolling restart any more. */
const triesMax = 3;

/** Begun again where the server that had it open is gone. */
const saveTo = async (
  environment: CommandEnvironment,
  client: CommandClient,
  file: string,
  timeoutMs: number,
): Promise<SnapshotFileSummary> => {
  for (let tries = 1; ; tries += 1) {
    const outcome = await trySaving(environment, client, file, timeoutMs);
    if (outcome.kind === 'saved') return outcome.summary;
    if (tries === triesMax) throw outcome.error;
  }
};

type Attempt =
  | { readonly kind: 'saved'; readonly summary: SnapshotFileSummary }
  /** It broke off after its first part. */
  | { readonly kind: 'lost'; readonly error: Error };

/** Part by part from the cluster into the file: nothing of the state is held here. */
const trySaving = async (
  environment: CommandEnvironment,
  client: CommandClient,
  file: string,
  timeoutMs: number,
): Promise<Attempt> => {
  const { SnapshotFileWriter } = await import('../storage/index.ts');
  const { asLogIndex, asTerm } = await import('../raft/index.ts');
  let writer: Awaited<ReturnType<typeof SnapshotFileWriter.create>> | undefined;
  try {
    for await (const part of client.readSnapshot({ timeoutMs })) {
      writer ??= await SnapshotFileWriter.create(file, {
        clusterId: part.clusterId,
        epoch: part.epoch,
        revision: part.revision,
        index: asLogIndex(part.index),
        term: asTerm(part.term),
        savedAtMs: environment.now(),
      });
      const { records, checksum, last, recordsTotal } = part;
      await writer.add({ number: part.part, records, checksum, last, recordsTotal });
    }
    if (writer === undefined) throw new Error('the server sent no snapshot');
    return { kind: 'saved', summary: await writer.finish() };
  } catch (error) {
    await writer?.discard();
    if (writer !== undefined && hasErrorCode(error, 'UNAVAILABLE')) return { kind: 'lost', error };
    throw error;
  }
};

const save = async (environment: CommandEnvironment, name: string, options: SaveOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  const file = resolve(environment.workingDirectory, name);
  if (existsSync(file) && options.force !== true)
    throw new UsageError(`${file} is there already: choose another name, or replace it with --force`);
  await withClient(environment, options, async (client) => {
    const summary = await saveTo(environment, client, file, timeoutMs);
    writeSummary(environment, file, summary, options.json === true, 'is written');
  });
};

interface OfflineOptions {
  readonly json?: true;
}

const verify = async (
  environment: CommandEnvironment,
  name: string,
  options: OfflineOptions,
): Promise<void> => {
  const { verifySnapshotFile } = await import('../storage/index.ts');
  const file = resolve(environment.workingDirectory, name);
  writeSummary(environment, file, await verifySnapshotFile(file), options.json === true, 'is whole');
};

interface RestoreOptions extends PlanOptions, OfflineOptions {
  readonly filePolicies?: true;
}

/** What agents need, and what decides over them. `directory`: of the new cluster. */
const accessLines = ({ policiesRevision, admitted }: RestoredCluster, directory: string): string => {
  const newOnes = `futurestore cert NAME --dir ${directory}`;
  const profiles = `agents' profiles need its endpoints, and ${join(directory, 'ca', 'servers.pem')} as their ca`;
  if (policiesRevision === 0 || admitted === undefined) {
    return (
      `its certificates are new: agents need new ones (${newOnes})\n` +
      'its policy.yaml is the one that init writes: copy your own there before its servers are started\n' +
      (admitted === undefined ? '' : 'the revocations of the snapshot count on\n')
    );
  }
  const { changes, realm, forAgents } = admitted;
  return (
    `the policies of the snapshot count on (revision ${policiesRevision} now), and policy.yaml does not: with --file-policies it would\n` +
    changes.map((change) => `  changed in them: ${change}\n`).join('') +
    `certificates that these policies accept are good here, too; ${profiles}\n` +
    (forAgents
      ? `new certificates of the realm ${realm}, with such profiles: ${newOnes}\n`
      : `what ${newOnes} makes is of the realm ${realm}, which the policies say nothing of yet: see futurestore acl get\n`)
  );
};

const restore = async (
  environment: CommandEnvironment,
  name: string,
  directory: string,
  options: RestoreOptions,
): Promise<void> => {
  const { restoreCluster } = await import('./restore-cluster.ts');
  const file = resolve(environment.workingDirectory, name);
  const plan = await plannedCluster(environment, directory, options);
  const restored = await restoreCluster(file, plan, { keepAccess: options.filePolicies !== true });
  if (options.json === true) {
    const { admitted, ...rest } = restored;
    writeJson(environment, { ...rest, policyChanges: admitted?.changes ?? [] });
    return;
  }
  const { clusterId, keys, epoch, snapshot, serverConfigurations, adminProfile } = restored;
  const servers = serverConfigurations.map((path) => `  futurestore server --config ${path}\n`).join('');
  environment.stdout.write(
    `cluster ${clusterId} (epoch ${epoch}) is made of revision ${snapshot.revision} of cluster ${snapshot.clusterId}, with ${keys === 1 ? '1 key' : `${keys} keys`}\n` +
      accessLines(restored, plan.directory) +
      `start its servers:\n${servers}` +
      `then, with the administrator's profile:\n  futurestore status --profile ${adminProfile}\n`,
  );
};

export const addSnapshotCommands = (program: Command, environment: CommandEnvironment): void => {
  const snapshot = program.command('snapshot').description('save the whole state, and make a cluster of it');
  clientCommand(snapshot, 'save', 'part')
    .description('write all keys and values of the running cluster, as of one revision, into a file')
    .argument('<file>')
    .option('--force', 'replace the file if it is there')
    .addHelpText('after', '\nThe file has all values, sensitive ones too: keep it as you keep the data.')
    .action((file: string, options: SaveOptions) => save(environment, file, options));
  snapshot
    .command('verify')
    .description('check every byte of a snapshot, without a cluster')
    .argument('<file>')
    .option('--json', 'print JSON')
    .action((file: string, options: OfflineOptions) => verify(environment, file, options));
  withPlan(snapshot.command('restore'))
    .description('make a new cluster, with a new identity, that begins with a snapshot')
    .argument('<file>')
    .argument('<dir>', 'where the new cluster is made, as by init')
    .option('--json', 'print JSON')
    .option(
      '--file-policies',
      'without the policies and revocations of the snapshot: the policy.yaml in <dir> counts',
    )
    .action((file: string, directory: string, options: RestoreOptions) =>
      restore(environment, file, directory, options),
    );
};

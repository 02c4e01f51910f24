/** init, cert, server, dev. What they need is heavy: it is loaded when they run. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { wholeNumber, writeJson } from './command-options.ts';
import type { CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { defaultDirectory } from './profile-location.ts';

export interface PlanOptions {
  readonly servers?: string;
  readonly host?: string[];
  readonly port: string;
}

const defaultServers = 3;

export const plannedCluster = async (
  environment: CommandEnvironment,
  directory: string,
  options: PlanOptions,
) => {
  const { basePortMax, serversMax } = await import('./authority/cluster-directory.ts');
  return {
    directory: resolve(environment.workingDirectory, directory),
    servers:
      options.servers === undefined
        ? defaultServers
        : wholeNumber('--servers', options.servers, 1, serversMax),
    hosts: (options.host ?? []).map(checkedHost),
    basePort: wholeNumber('--port', options.port, 1, basePortMax),
    nowMs: environment.now(),
  };
};

export const checkedHost = (host: string): string => {
  if (/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(host) || /^[0-9A-Fa-f:.]{2,45}$/.test(host))
    return host;
  throw new UsageError(
    `--host ${JSON.stringify(host)} is no host name or IP address: write it without port or brackets`,
  );
};

const init = async (
  environment: CommandEnvironment,
  directory: string,
  options: PlanOptions & { readonly json?: true },
): Promise<void> => {
  const { initCluster } = await import('./authority/cluster-directory.ts');
  const { authorityDays, leafDays } = await import('./authority/certificates.ts');
  const made = await initCluster(await plannedCluster(environment, directory, options));
  if (options.json === true) {
    writeJson(environment, made);
    return;
  }
  const servers = made.serverConfigurations.map((file) => `  futurestore server --config ${file}\n`).join('');
  environment.stdout.write(
    `cluster ${made.clusterId} is made: certificates are valid for ${leafDays} days, authorities for ${authorityDays}\n` +
      `start its servers:\n${servers}` +
      `then, with the administrator's profile:\n  futurestore status --profile ${made.adminProfile}\n`,
  );
};

interface CertOptions {
  readonly dir: string;
  readonly forceReissue?: true;
  readonly json?: true;
}

const cert = async (environment: CommandEnvironment, name: string, options: CertOptions): Promise<void> => {
  const { issueAgentCertificate } = await import('./authority/cluster-directory.ts');
  const { leafDays } = await import('./authority/certificates.ts');
  const issued = await issueAgentCertificate({
    directory: resolve(environment.workingDirectory, options.dir),
    name,
    reissue: options.forceReissue === true,
    nowMs: environment.now(),
  });
  if (options.json === true) writeJson(environment, issued);
  else {
    environment.stdout.write(
      `${name} has a certificate, valid for ${leafDays} days. Copy these to where it runs, and give its profile with --profile:\n` +
        issued.files.map((file) => `  ${file}\n`).join(''),
    );
  }
};

interface ServerOptions {
  readonly config?: string;
  readonly printSettings?: true;
  readonly join?: true;
  readonly json?: true;
}

const server = async (environment: CommandEnvironment, options: ServerOptions): Promise<void> => {
  if (options.printSettings === true) {
    const { settingsAsData, settingsAsText } = await import('./configuration/server-configuration.ts');
    if (options.json === true) writeJson(environment, settingsAsData());
    else environment.stdout.write(settingsAsText());
    return;
  }
  if (options.config === undefined)
    throw new UsageError('give the server its configuration with --config FILE (futurestore init makes one)');
  const { serve } = await import('./serve.ts');
  await serve(resolve(environment.workingDirectory, options.config), environment.interruption(), {
    join: options.join === true,
    onHangup: (listener) => environment.onHangup(listener),
  });
};

interface DevOptions extends PlanOptions {
  readonly dir: string;
}

const dev = async (environment: CommandEnvironment, options: DevOptions): Promise<void> => {
  const planned = await plannedCluster(environment, options.dir, options);
  const { runDevelopmentCluster } = await import('./dev.ts');
  await runDevelopmentCluster(environment, planned, options.servers !== undefined);
};

export const withPlan = (command: Command): Command =>
  command
    .option('--servers <n>', `how many servers (default: ${defaultServers})`)
    .option(
      '--host <name...>',
      'names or addresses under which the servers are reached: one for each, or else the first is that of all (default: 127.0.0.1)',
    )
    .option(
      '--port <n>',
      "agents' ports are this and the next ones; servers' are 10 higher, admin's 20",
      '7421',
    );

export const addClusterCommands = (program: Command, environment: CommandEnvironment): void => {
  withPlan(program.command('init'))
    .description('make a cluster: certificates, configurations, a profile')
    .argument('<dir>')
    .option('--json', 'print JSON')
    .action((directory: string, options: PlanOptions & { readonly json?: true }) =>
      init(environment, directory, options),
    );
  program
    .command('cert')
    .description("issue an agent's certificate and profile")
    .argument('<name>', 'the agent: one segment of a key, such as web1.example.com')
    .option('--dir <dir>', 'the directory that init made', defaultDirectory)
    .option('--force-reissue', 'replace the certificate it has')
    .option('--json', 'print JSON')
    .action((name: string, options: CertOptions) => cert(environment, name, options));
  program
    .command('server')
    .description('run one server in the foreground; SIGTERM stops it cleanly')
    .option('--config <file>', 'its server.yaml')
    .option('--join', 'it was added to a running cluster: begin with what the others send (as join: true)')
    .option('--print-settings', 'print all settings, their defaults and meaning, and end')
    .option('--json', 'print the settings as JSON')
    .action((options: ServerOptions) => server(environment, options));
  withPlan(program.command('dev'))
    .description('run a whole cluster on this machine, made if needed')
    .option('--dir <dir>', 'where it is kept', defaultDirectory)
    .action((options: DevOptions) => dev(environment, options));
};

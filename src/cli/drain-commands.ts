/** drain, rebalance. */
import type { Command } from 'commander';
import type { DrainStanding, MemberList } from '../protocol/index.ts';
import type { ClientOptions } from './command-options.ts';
import {
  clientCommand,
  durationOption,
  failure,
  optionalDuration,
  withClient,
  writeJson,
} from './command-options.ts';
import { defaultTimeout } from './command-options.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { Deadline, hasErrorCode, memberCalled, titleOf } from './member-changes.ts';
import { Table, visible } from './output.ts';

interface GraceOptions extends ClientOptions {
  readonly grace?: string;
}

interface DrainOptions extends GraceOptions {
  readonly end?: true;
  readonly wait?: true;
}

const deadlineOf = async (environment: CommandEnvironment, options: ClientOptions): Promise<Deadline> =>
  new Deadline(environment, await durationOption('--timeout', options.timeout ?? defaultTimeout));

const seconds = (ms: number): string => (ms < 1000 ? `${ms} ms` : `${Math.round(ms / 100) / 10} s`);

const agentsText = (count: number): string => (count === 1 ? '1 agent' : `${count} agents`);

const leaderText = ({ leader, member }: DrainStanding, { members }: MemberList): string => {
  if (leader === undefined) return 'no leader is known there';
  const name = members.find(({ id }) => id === leader)?.name ?? '';
  return leader === member
    ? 'it leads on, since no other server can now, and hands over as soon as one can'
    : `${titleOf({ id: leader, name })} leads`;
};

const departureText = ({ agents, graceMs }: DrainStanding): string => {
  if (agents === 0) return 'it has none';
  return `its ${agentsText(agents)} ${agents === 1 ? 'leaves' : 'leave'} within ${seconds(graceMs)}`;
};

/** The grace, and whatever else the command may take, is waited for. */
const waitUntilEmpty = async (
  client: CommandClient,
  environment: CommandEnvironment,
  member: number,
  waitMs: number,
): Promise<void> => {
  const deadline = new Deadline(environment, waitMs);
  let left: number | undefined;
  for (;;) {
    try {
      const status = await client.status(deadline.left);
      left = status.members.find(({ id }) => id === member)?.connections ?? 0;
    } catch (error) {
      if (!hasErrorCode(error, 'TIMED_OUT')) throw error;
    }
    if (left === 0) return;
    if (deadline.passed) break;
    await deadline.pause();
  }
  const now = left === undefined ? '' : `: ${agentsText(left)} ${left === 1 ? 'is' : 'are'} still there`;
  throw await failure('TIMED_OUT', `server ${member} is drained, but not empty within ${waitMs} ms${now}`);
};

const drain = async (environment: CommandEnvironment, who: string, options: DrainOptions): Promise<void> => {
  const deadline = await deadlineOf(environment, options);
  const grace = await optionalDuration('graceMs', '--grace', options.grace);
  const end = options.end === true;
  if (end && (options.grace ?? options.wait) !== undefined)
    throw new UsageError('--end takes agents again at once: it goes with neither --grace nor --wait');
  await withClient(environment, options, async (client) => {
    const list = await client.members(deadline.left);
    const target = memberCalled(list, who);
    const standing = await client.drainServer(target.id, { ...grace, end, ...deadline.left });
    if (options.wait === true)
      await waitUntilEmpty(client, environment, target.id, standing.graceMs + deadline.timeoutMs);
    if (options.json === true) {
      const leader = standing.leader ?? null;
      writeJson(environment, {
        ...standing,
        name: target.name,
        leader,
        ...(options.wait && { empty: true }),
      });
      return;
    }
    const title = titleOf(target);
    const text = end
      ? `${title} takes agents: it has ${standing.agents === 0 ? 'none' : standing.agents} now, see futurestore rebalance`
      : `${title} takes no agents: ${departureText(standing)}; ${leaderText(standing, list)}`;
    environment.stdout.write(options.wait === true ? `${text}\nall have left\n` : `${text}\n`);
  });
};

const rebalance = async (environment: CommandEnvironment, options: GraceOptions): Promise<void> => {
  const deadline = await deadlineOf(environment, options);
  const grace = await optionalDuration('graceMs', '--grace', options.grace);
  await withClient(environment, options, async (client) => {
    const { servers, graceMs } = await client.rebalance({ ...grace, ...deadline.left });
    if (options.json === true) {
      writeJson(environment, { servers, graceMs });
      return;
    }
    new Table(environment.stdout, ['NAME', 'AGENTS', 'MOVING']).write(
      servers.map(({ name, agents, moving, leftOut }) =>
        leftOut ? [visible(name), '-', 'left out'] : [visible(name), String(agents), String(moving)],
      ),
    );
    const moving = servers.reduce((sum, share) => sum + share.moving, 0);
    environment.stdout.write(
      moving === 0
        ? 'nobody has to move\n'
        : `${agentsText(moving)} ${moving === 1 ? 'moves' : 'move'} within ${seconds(graceMs)}\n`,
    );
  });
};

const graceHelp =
  'over which agents move, such as 10s or 5m, at most 1h (default: 5 s and 10 ms for each agent)';

export const addDrainCommands = (program: Command, environment: CommandEnvironment): void => {
  clientCommand(program, 'drain')
    .description(
      'have a server take no agents, send those that it has elsewhere, and not lead; a restart ends it',
    )
    .argument('<who>', 'the server: its id or its name')
    .option('--grace <duration>', graceHelp)
    .option('--wait', 'end when it has no agents any more')
    .option('--end', 'take agents again')
    .action((who: string, options: DrainOptions) => drain(environment, who, options));
  clientCommand(program, 'rebalance')
    .description('move agents from servers that have many to those that have few')
    .option('--grace <duration>', graceHelp)
    .action((options: GraceOptions) => rebalance(environment, options));
};

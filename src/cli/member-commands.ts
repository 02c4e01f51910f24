/** member list|add|promote|remove|replace, transfer-leader. */
import { dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { Member, MemberList } from '../protocol/index.ts';
import type { ClientOptions } from './command-options.ts';
import { clientCommand, failure, timeoutOf, wholeNumber, withClient, writeJson } from './command-options.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { Deadline, hasErrorCode, memberCalled, titleOf, waitForMembers } from './member-changes.ts';
import type { Joined, Place } from './member-join.ts';
import { writeMembers } from './output.ts';
import { locateProfile } from './profile-location.ts';

const list = async (environment: CommandEnvironment, options: ClientOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withClient(environment, options, async (client) => {
    const answer = await client.members({ timeoutMs });
    if (options.json === true) writeJson(environment, { ...answer, leader: answer.leader ?? null });
    else writeMembers(environment.stdout, answer);
  });
};

interface PlaceOptions extends ClientOptions {
  readonly dir?: string;
  readonly host?: string;
  readonly port?: string;
  readonly peers?: string;
  readonly agents?: string;
}

interface ChangeOptions extends ClientOptions {
  /** false: `--no-wait`. */
  readonly wait: boolean;
}

const placeOf = async (environment: CommandEnvironment, options: PlaceOptions): Promise<Place> => {
  const { peers, agents, dir, host, port } = options;
  if (peers === undefined && agents === undefined) {
    const { basePortMax } = await import('./authority/cluster-directory.ts');
    const { checkedHost } = await import('./cluster-commands.ts');
    return {
      kind: 'directory',
      // The administrator's profile is in the directory that init made.
      directory:
        dir === undefined
          ? dirname(locateProfile(options.profile, environment))
          : resolve(environment.workingDirectory, dir),
      ...(host === undefined ? {} : { host: checkedHost(host) }),
      ...(port === undefined ? {} : { port: wholeNumber('--port', port, 1, basePortMax) }),
    };
  }
  if (peers === undefined || agents === undefined || (dir ?? host ?? port) !== undefined) {
    throw new UsageError(
      'give --dir (with --host and --port), and the files of the server are made; or --peers and --agents, and you make them',
    );
  }
  return { kind: 'elsewhere', peersAddress: peers, agentsUrl: agents };
};

/** Whoever has the cluster's directory has the administrator's profile in it. */
const withClientOf = (
  environment: CommandEnvironment,
  options: ClientOptions,
  place: Place,
  use: (client: CommandClient) => Promise<void>,
): Promise<void> =>
  withClient(
    environment,
    options,
    use,
    place.kind === 'directory' ? join(place.directory, 'admin.yaml') : undefined,
  );

const joinedAsJson = ({ member, name, peersAddress, agentsUrl, directory }: Joined) => ({
  member,
  name,
  peersAddress,
  agentsUrl,
  directory: directory ?? null,
});

const writeInstructions = (environment: CommandEnvironment, { instructions }: Joined): void => {
  environment.stdout.write(instructions.map((line) => `${line}\n`).join(''));
};

const add = async (environment: CommandEnvironment, name: string, options: PlaceOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  const place = await placeOf(environment, options);
  const { joinServer } = await import('./member-join.ts');
  await withClientOf(environment, options, place, async (client) => {
    const present = await client.members({ timeoutMs });
    const joined = await joinServer(environment, client, {
      name,
      place,
      replaced: undefined,
      list: present,
      timeoutMs,
    });
    if (options.json === true) {
      writeJson(environment, joinedAsJson(joined));
      return;
    }
    environment.stdout.write(
      `${titleOf({ id: joined.member, name })} is added, as a learner: it gets all data and does not vote\n`,
    );
    writeInstructions(environment, joined);
    environment.stdout.write(`when it runs, let it vote:\n  futurestore member promote ${joined.member}\n`);
  });
};

const isVoter = (current: MemberList, member: number): boolean =>
  current.members.some(({ id, standing }) => id === member && standing === 'voter');

const isGone = (current: MemberList, member: number): boolean =>
  !current.members.some(({ id }) => id === member);

const standingIn = (current: MemberList, member: number): string => {
  const found = current.members.find(({ id }) => id === member);
  if (found === undefined) return `server ${member} is no member`;
  const { standing, lag, reachable } = found;
  return `${titleOf(found)} is ${standing}, ${reachable ? `${lag} entries behind` : 'and not reachable'}`;
};

const writeDone = (
  environment: CommandEnvironment,
  options: ClientOptions,
  data: { readonly member: number; readonly name: string; readonly done: boolean },
  text: string,
): void => {
  if (options.json === true) writeJson(environment, data);
  else environment.stdout.write(`${text}\n`);
};

/** Who is still catching up, or is not there yet, is asked about again as long as there is time. */
const promoteWhenReady = async (
  client: CommandClient,
  member: number,
  deadline: Deadline,
  wait: boolean,
): Promise<void> => {
  for (;;) {
    try {
      await client.promoteMember(member, deadline.left);
      return;
    } catch (error) {
      if (!wait || !hasErrorCode(error, 'MEMBERSHIP_REFUSED') || deadline.passed) throw error;
      const found = (await client.members(deadline.left)).members.find(({ id }) => id === member);
      const isComing =
        found?.standing === 'joining' ||
        (found?.standing === 'learner' && (!found.reachable || found.lag > 0));
      if (!isComing) throw error;
    }
    await deadline.pause();
  }
};

const promote = async (
  environment: CommandEnvironment,
  who: string,
  options: ChangeOptions,
): Promise<void> => {
  const deadline = new Deadline(environment, await timeoutOf(options));
  await withClient(environment, options, async (client) => {
    const target = memberCalled(await client.members(deadline.left), who);
    await promoteWhenReady(client, target.id, deadline, options.wait);
    if (options.wait) {
      await waitForMembers(
        client,
        deadline,
        (current) => isVoter(current, target.id),
        (current) => standingIn(current, target.id),
      );
    }
    const text = options.wait ? `${titleOf(target)} votes now` : `${titleOf(target)} will vote`;
    writeDone(environment, options, { member: target.id, name: target.name, done: options.wait }, text);
  });
};

/** A request that was answered into a lost connection is refused when it is sent again: it is done all the same. */
const removeOnce = async (client: CommandClient, member: number, deadline: Deadline): Promise<void> => {
  try {
    await client.removeMember(member, deadline.left);
  } catch (error) {
    if (!hasErrorCode(error, 'MEMBERSHIP_REFUSED')) throw error;
    if (!isGone(await client.members(deadline.left), member)) throw error;
  }
};

const remove = async (
  environment: CommandEnvironment,
  who: string,
  options: ChangeOptions,
): Promise<void> => {
  const deadline = new Deadline(environment, await timeoutOf(options));
  await withClient(environment, options, async (client) => {
    const present = await client.members(deadline.left);
    const target = memberCalled(present, who);
    await removeOnce(client, target.id, deadline);
    if (options.wait) {
      await waitForMembers(
        client,
        deadline,
        (current) => isGone(current, target.id),
        (current) => standingIn(current, target.id),
      );
    }
    const profile = locateProfile(options.profile, environment);
    const unused = await uselessPart(dirname(profile), target.id);
    const left = options.wait ? await leaveEndpoint(profile, target, present) : '';
    const text = options.wait
      ? `${titleOf(target)} is no member any more, its process ends by itself\nnever start it again${unused}${left}`
      : `${titleOf(target)} will be removed`;
    writeDone(environment, options, { member: target.id, name: target.name, done: options.wait }, text);
  });
};

/** The administrator's profile, in the directory that init made, names the others only from now on. */
const leaveEndpoint = async (
  profile: string,
  { id, agentsUrl }: Member,
  list: MemberList,
): Promise<string> => {
  // Whoever comes in its place may have its address.
  if (list.members.some((other) => other.id !== id && other.agentsUrl === agentsUrl)) return '';
  const { removeAdminEndpoint } = await import('./authority/server-directory.ts');
  try {
    await removeAdminEndpoint(profile, agentsUrl);
    return '';
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return `\ntake ${agentsUrl} out of the endpoints of ${profile}, which could not be changed: ${why}`;
  }
};

/** Of a line about who has left. */
const uselessPart = async (directory: string, member: number): Promise<string> => {
  const { uselessDirectoryOf } = await import('./authority/files.ts');
  const path = uselessDirectoryOf(directory, member);
  return path === undefined ? '' : `: ${path} is no longer used, remove it`;
};

const writeReplaced = (
  environment: CommandEnvironment,
  target: Member,
  joined: Joined,
  unused: string,
): void => {
  const { stdout } = environment;
  stdout.write(
    `${titleOf({ id: joined.member, name: joined.name })} comes in the place of ${titleOf(target)}\n`,
  );
  writeInstructions(environment, joined);
  stdout.write(`never start ${titleOf(target)} again${unused}\n`);
};

/** The command may have been given twice. Then the name is by now that of the new one. */
const stillToCome = (target: Member): string =>
  `${titleOf(target)} has not taken part yet since it was added, maybe in the place of another: start it; ` +
  `if it is lost too, replace it by its id: futurestore member replace ${target.id}`;

const replace = async (
  environment: CommandEnvironment,
  who: string,
  newName: string | undefined,
  options: PlaceOptions & ChangeOptions,
): Promise<void> => {
  const deadline = new Deadline(environment, await timeoutOf(options));
  const place = await placeOf(environment, options);
  const { joinServer } = await import('./member-join.ts');
  await withClientOf(environment, options, place, async (client) => {
    const present = await client.members(deadline.left);
    const target = memberCalled(present, who);
    if (!target.joined && who !== String(target.id))
      throw await failure('MEMBERSHIP_REFUSED', stillToCome(target));
    const joined = await joinServer(environment, client, {
      name: newName ?? target.name,
      place,
      replaced: target,
      list: present,
      timeoutMs: deadline.left.timeoutMs,
    });
    if (options.json !== true) {
      const unused = place.kind === 'directory' ? await uselessPart(place.directory, target.id) : '';
      writeReplaced(environment, target, joined, unused);
    }
    if (options.wait) {
      await waitForMembers(
        client,
        deadline,
        (current) => isVoter(current, joined.member) && isGone(current, target.id),
        (current) => `${standingIn(current, joined.member)}, ${standingIn(current, target.id)}`,
      );
    }
    if (options.json === true) {
      writeJson(environment, { ...joinedAsJson(joined), replaces: target.id, done: options.wait });
    } else if (options.wait) {
      environment.stdout.write(
        `the cluster counts on ${titleOf({ id: joined.member, name: joined.name })} now, and ${titleOf(target)} is no member any more\n`,
      );
    }
  });
};

const transferLeader = async (
  environment: CommandEnvironment,
  who: string | undefined,
  options: ClientOptions,
): Promise<void> => {
  const deadline = new Deadline(environment, await timeoutOf(options));
  await withClient(environment, options, async (client) => {
    const present = await client.members(deadline.left);
    const target = who === undefined ? undefined : memberCalled(present, who);
    const isLeading = target !== undefined && present.leader === target.id;
    const leader = isLeading
      ? target.id
      : await client.transferLeader({
          ...deadline.left,
          ...(target === undefined ? {} : { to: target.id }),
        });
    const name = present.members.find(({ id }) => id === leader)?.name ?? '';
    if (options.json === true) writeJson(environment, { leader, name });
    else
      environment.stdout.write(`${titleOf({ id: leader, name })} leads ${isLeading ? 'already' : 'now'}\n`);
  });
};

const whoHelp = 'the server: its id or its name';

const withPlace = (command: Command): Command =>
  command
    .option(
      '--dir <dir>',
      'the directory that init made, with ca/servers.key (default: where the profile is)',
    )
    .option('--host <name>', 'the name or address under which the server is reached')
    .option('--port <n>', "agents' port; servers' is 10 higher, admin's 20")
    .option('--peers <address>', 'instead of --dir, if you make its files: host:port for the other servers')
    .option('--agents <url>', 'instead of --dir, if you make its files: wss://host:port for agents');

const withWait = (command: Command): Command =>
  command.option('--no-wait', 'end as soon as the change is in the log');

export const addMemberCommands = (program: Command, environment: CommandEnvironment): void => {
  const member = program.command('member').description('see and change which servers are in the cluster');
  clientCommand(member, 'list')
    .description('print the servers and how the cluster counts them')
    .action((options: ClientOptions) => list(environment, options));
  withPlace(clientCommand(member, 'add'))
    .description('add a server as a learner, and make its directory')
    .argument('<name>', "the new server: the CN of its peers' certificate")
    .action((name: string, options: PlaceOptions) => add(environment, name, options));
  withWait(clientCommand(member, 'promote'))
    .description('make a learner a voter, as soon as it has caught up')
    .argument('<who>', whoHelp)
    .action((who: string, options: ChangeOptions) => promote(environment, who, options));
  withWait(clientCommand(member, 'remove'))
    .description('take a server out of the cluster')
    .argument('<who>', whoHelp)
    .action((who: string, options: ChangeOptions) => remove(environment, who, options));
  withWait(withPlace(clientCommand(member, 'replace')))
    .description('put a new server, with an empty disk, in the place of one that is lost')
    .argument('<who>', `${whoHelp}, of the one that is lost`)
    .argument('[name]', 'the new server (default: the same name)')
    .action((who: string, name: string | undefined, options: PlaceOptions & ChangeOptions) =>
      replace(environment, who, name, options),
    );
  clientCommand(program, 'transfer-leader')
    .description('hand leadership over')
    .argument('[who]', `${whoHelp} (default: the one that is most up to date)`)
    .action((who: string | undefined, options: ClientOptions) => transferLeader(environment, who, options));
};

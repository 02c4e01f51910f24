/** What the log says of servers, and what they ask for on behalf of operators: members and access. */
import { accessRefused } from './access.ts';
import { assert } from './assert.ts';
import { changeRefused, type MemberCommand } from './members.ts';
import { done } from './results.ts';
import { detach } from './session-commands.ts';
import type { ServerState } from './state-codec.ts';
import type { Tables } from './tables.ts';
import type { AccessCommand, CommandOf, CommandResult, Origin } from './types.ts';

const notAnnounced = new Uint8Array(0);

export const startServer = (
  tables: Tables,
  { member, run, diskId }: CommandOf<'server_started'>,
): CommandResult => {
  const known = tables.servers.find(member);
  // An old run's announcement that was late.
  if ((known !== undefined && known.run > run) || tables.members.isGone(member)) return done;
  const change = known?.run === run ? known.change : undefined;
  tables.servers.put({ member, run, diskId, change });
  for (const session of tables.sessions.attachedTo(member)) if (session.run < run) detach(tables, session);
  return done;
};

export const loseServer = (tables: Tables, { member, run }: CommandOf<'server_lost'>): CommandResult => {
  if (tables.servers.find(member)?.run !== run) return done;
  for (const session of tables.sessions.attachedTo(member)) detach(tables, session);
  return done;
};

/** It has left: its records go, and the grace of its sessions begins. */
export const dropServer = (tables: Tables, member: number): void => {
  tables.servers.remove(member);
  for (const session of tables.sessions.attachedTo(member)) detach(tables, session);
};

/** A change that is not begun: nobody waits for it any more, or it was decided before. */
type NotBegun = { readonly why: string } | { readonly decided: NonNullable<ServerState['change']> };

/**
 * A change happens once, however often the server that was asked has sent it: its record remembers the last one. What
 * waits no longer for its result, because its run is over or its server has left, is not begun any more.
 */
const changeOnce = (
  tables: Tables,
  { member, run, request }: Origin,
  refuse: (notBegun: NotBegun) => CommandResult,
  decide: () => CommandResult,
): CommandResult => {
  const known = tables.servers.find(member);
  if (tables.members.isGone(member) || (known !== undefined && known.run > run))
    return refuse({ why: `member ${member}, which was asked, has left or has been started again: ask anew` });
  const last = known?.run === run ? known.change : undefined;
  if (last !== undefined && request <= last.request) return refuse({ decided: last });
  const result = decide();
  // Numbers begin at 1. It may come before the announcement of its run, when that was lost on its way.
  assert(request > 0, 'a command of an operator has no number');
  const change = { request, member: result.kind === 'member' ? result.member : 0 };
  tables.servers.put({ member, run, diskId: known?.diskId ?? notAnnounced, change });
  return result;
};

/** What became of the member since does not matter: the answer is as it was. */
export const changeMembers = (tables: Tables, command: MemberCommand, origin: Origin): CommandResult =>
  changeOnce(
    tables,
    origin,
    (notBegun) => {
      if ('why' in notBegun) return changeRefused(notBegun.why);
      const { decided } = notBegun;
      if (origin.request < decided.request || decided.member === 0)
        return changeRefused(
          'this was asked for before, and decided: see in the list of members what it is now',
        );
      return { kind: 'member', member: decided.member };
    },
    () => tables.access.refusalToChange(command.by, 'member.change') ?? tables.members.change(command),
  );

/** Sent again later it would undo what others have changed since. */
export const changeAccess = (tables: Tables, command: AccessCommand, origin: Origin): CommandResult =>
  changeOnce(
    tables,
    origin,
    (notBegun) =>
      accessRefused(
        'why' in notBegun
          ? notBegun.why
          : 'this was asked for before, and decided: see with acl get what holds now',
      ),
    () => tables.access.change(command),
  );

/** What the log says of servers, and what they ask for on behalf of operators: members and access. */
import { accessRefused } from './access.ts';
import { assert } from './assert.ts';
import { changeRefused, type MemberCommand } from './members.ts';
import { done } from './results.ts';
import { detach } from './session-commands.ts';
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

/**
 * Once, however often the server that was asked has sent it, and whatever has become of the member since. What waits
 * no longer for its result, because its run is over or its server has left, is not begun any more.
 */
export const changeMembers = (
  tables: Tables,
  command: MemberCommand,
  { member, run, request }: Origin,
): CommandResult => {
  const known = tables.servers.find(member);
  if (tables.members.isGone(member) || (known !== undefined && known.run > run))
    return changeRefused(`member ${member}, which was asked, has left or has been started again: ask anew`);
  const last = known?.run === run ? known.change : undefined;
  if (last !== undefined && request <= last.request) {
    if (request < last.request || last.member === 0)
      return changeRefused(
        'this was asked for before, and decided: see in the list of members what it is now',
      );
    return { kind: 'member', member: last.member };
  }
  const refused = tables.access.refusalToChange(command.by, 'member.change');
  const result = refused ?? tables.members.change(command);
  const change = { request, member: result.kind === 'member' ? result.member : 0 };
  // Numbers begin at 1. It may come before the announcement of its run, when that was lost on its way.
  assert(request > 0, 'a command about members has no number');
  tables.servers.put({ member, run, diskId: known?.diskId ?? notAnnounced, change });
  return result;
};

/** Once, as the commands about members: sent again later it would undo what others have changed since. */
export const changeAccess = (
  tables: Tables,
  command: AccessCommand,
  { member, run, request }: Origin,
): CommandResult => {
  const known = tables.servers.find(member);
  if (tables.members.isGone(member) || (known !== undefined && known.run > run))
    return accessRefused(`member ${member}, which was asked, has left or has been started again: ask anew`);
  const last = known?.run === run ? known.change : undefined;
  if (last !== undefined && request <= last.request)
    return accessRefused('this was asked for before, and decided: see with acl get what holds now');
  const result = tables.access.change(command);
  // Numbers begin at 1.
  assert(request > 0, 'a command about access has no number');
  tables.servers.put({
    member,
    run,
    diskId: known?.diskId ?? notAnnounced,
    change: { request, member: 0 },
  });
  return result;
};

/** What is logged of an applied command that changes the cluster itself. No value, no policy text, no key. */
import type { Command, CommandResult } from '../store/index.ts';
import { askerOf, principalText } from './askers.ts';

/** undefined: the command is none of these. */
export const changeLine = (
  command: Command,
  result: CommandResult | undefined,
): Readonly<Record<string, unknown>> | undefined => {
  const outcome = outcomeOf(result);
  switch (command.kind) {
    case 'acl_apply':
    case 'acl_revoke':
    case 'acl_restore': {
      const until = command.kind === 'acl_revoke' ? { untilMs: command.untilMs } : {};
      const about = command.kind === 'acl_apply' ? {} : { revocation: command.revocation, ...until };
      return { change: command.kind, principal: principalText(command.by), ...about, ...outcome };
    }
    case 'member_add': {
      const { kind, name, peersAddress, agentsUrl, replaces } = command;
      return {
        change: kind,
        principal: askerOf(command),
        name,
        peersAddress,
        agentsUrl,
        replaces,
        ...outcome,
      };
    }
    case 'member_promote':
    case 'member_remove':
      return { change: command.kind, principal: askerOf(command), member: command.member, ...outcome };
    default:
      return undefined;
  }
};

const outcomeOf = (result: CommandResult | undefined): Readonly<Record<string, unknown>> => {
  switch (result?.kind) {
    case 'failed':
      return { outcome: 'refused', code: result.failure.code };
    case 'access':
      return { outcome: result.unchanged ? 'unchanged' : 'done', revision: result.revision };
    case 'member':
      return { outcome: 'done', member: result.member };
    default:
      return {};
  }
};

/** Whether every server of the cluster can take what is new: each must be of a version that knows it. */
import type { Store } from '../store/index.ts';
import type { MemberDescription } from './member-directory.ts';
import type { Membership } from './membership.ts';

/** The first version of the peer protocol whose servers know the command that replaces the keys for tickets. */
export const ticketKeysVersionLeast = 4;

/** The first version of the peer protocol whose servers know commands about access. */
export const accessVersionLeast = 3;

export interface KnownVersionsOptions {
  readonly self: number;
  readonly membership: Membership;
  readonly store: () => Store;
}

/**
 * Which member is not known to be of this version of the peer protocol at least, and why, as a phrase; undefined: none.
 *
 * One that is not linked may be of any version. But keys for tickets are in the log only since all were linked, and of
 * a version that knows them, and who has come since has read them: then it is known of the absent, too. The same is true
 * of a change of access. So a dead server does not keep anybody from revoking, nor from taking back what was revoked.
 * (Changes of members don't ask this of the absent: one of them may be the very member that is to be replaced.)
 */
export const memberBehind = (
  { self, membership, store }: KnownVersionsOptions,
  least: number,
): string | undefined => {
  const leastOfAbsent = knownOfAll(store());
  const isBehind = ({ id }: MemberDescription): boolean =>
    id !== self && (membership.versionOf(id) ?? leastOfAbsent) < least;
  const member = membership.directory.current.find(isBehind);
  if (member === undefined) return undefined;
  const { id, name } = member;
  return membership.versionOf(id) === undefined
    ? `${name} (member ${id}) is not in touch with this server, and may run a version that does not know this: start it, replace it if it is lost, or ask another server`
    : `${name} (member ${id}) runs a version that does not know this: upgrade all servers first`;
};

/** What the state says of everybody who has read it; 0: nothing. */
const knownOfAll = ({ ticketKeys, access }: Store): number => {
  if (ticketKeys !== undefined) return ticketKeysVersionLeast;
  return access === undefined ? 0 : accessVersionLeast;
};

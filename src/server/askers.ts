/** By whom a change of the cluster was asked for, as its command and the log lines about it say. */
import type { AskedBy, Subject } from '../store/index.ts';

/** 'realm:name'. */
export const principalText = ({ principal }: Subject): string => `${principal.realm}:${principal.name}`;

/**
 * For a command about members. Where the log decides over access it does so over this, too: who asked may have been revoked
 * on the way. Where it does not, servers of earlier versions might decide otherwise, so that the name alone is told.
 */
export const askedBy = (by: Subject | undefined, isDecidedInLog: boolean): AskedBy => {
  if (by === undefined) return {};
  return isDecidedInLog ? { by } : { askedBy: principalText(by) };
};

/** undefined: a server of an earlier version was asked. */
export const askerOf = ({ by, askedBy: name }: AskedBy): string | undefined =>
  by === undefined ? name : principalText(by);

/** What the audit says of a request that concerns the whole cluster, and of its answer. No value, no policy text. */
import type { AnswerBody, ClusterChange, RequestBody } from '../protocol/index.ts';

/** Those that are told of when they are asked for, and again when they are answered. */
export type AuditedRequest = ClusterChange | Extract<RequestBody, { readonly kind: 'snapshot_read' }>;

type Fields = Readonly<Record<string, unknown>>;

/** Of the parts of a snapshot the first one begins it: that reads all keys and values. */
export const snapshotRequest = 'snapshot_save';

/** Its name in all lines about it. */
export const auditedName = (body: AuditedRequest): string => {
  if (body.kind === 'snapshot_read') return snapshotRequest;
  return body.kind === 'drain_server' && body.end ? 'end_drain' : body.kind;
};

/** What it is about. */
export const askedFields = (body: AuditedRequest): Fields => {
  switch (body.kind) {
    case 'member_add': {
      const { name, peersAddress, agentsUrl, replaces } = body;
      return { name, peersAddress, agentsUrl, replaces };
    }
    case 'member_promote':
    case 'member_remove':
      return { member: body.member };
    case 'transfer_leader':
      return { member: body.member };
    case 'drain_server':
      return { member: body.member, graceMs: body.graceMs };
    case 'rebalance':
      return { graceMs: body.graceMs };
    case 'acl_apply':
      return { ifRevision: body.ifRevision, force: body.force };
    case 'acl_revoke':
      return { revocation: body.revocation, untilMs: body.untilMs };
    case 'acl_restore':
      return { revocation: body.revocation };
    case 'snapshot_read':
      return {};
    default:
      return body satisfies never;
  }
};

/** The answer may never come, and what was asked for may have happened all the same. */
export const outcomeUnknown: Fields = { outcome: 'unknown' };

/** What has become of it. */
export const outcomeFields = (body: AnswerBody): Fields => {
  switch (body.kind) {
    case 'failed': {
      const { code } = body.failure;
      const unknown = code === 'TIMED_OUT' || code === 'CANCELLED' || code === 'OUTCOME_UNKNOWN';
      return { outcome: unknown ? 'unknown' : 'refused', code };
    }
    case 'member_changed':
    case 'leader_transferred':
      return { outcome: 'done', member: body.member };
    case 'drained': {
      const { member, agents, graceMs, leader } = body.standing;
      return { outcome: 'done', member, agents, graceMs, leader };
    }
    case 'rebalanced': {
      const { servers, graceMs } = body.rebalanced;
      return { outcome: 'done', agents: servers.reduce((sum, { moving }) => sum + moving, 0), graceMs };
    }
    case 'access_changed':
      return { outcome: body.unchanged ? 'unchanged' : 'done', revision: body.revision };
    case 'snapshot_part': {
      const { snapshot, last, revision } = body.part;
      return { outcome: last ? 'done' : 'begun', snapshot, revision };
    }
    default:
      return { outcome: 'done' };
  }
};

/** What is asked and told about the cluster itself (its members, its whole state) as agent.proto's messages and back. */
import { copyBytes } from './bytes.ts';
import type {
  ClusterStatus,
  Member,
  MemberList,
  MemberStatus,
  RequestBody,
  SnapshotReadPart,
} from './frames.ts';
import { incoming, malformed, outgoing } from './future-messages.ts';
import type { messages } from './messages.ts';
import { shown } from './request-checks.ts';

type StatusMessage = messages.agent.StatusResult.$Properties;
type MemberStatusMessage = messages.agent.MemberStatus.$Properties;
type MemberListMessage = messages.agent.MemberListResult.$Properties;
type MemberMessage = messages.agent.Member.$Properties;
type SnapshotPartMessage = messages.agent.SnapshotPart.$Properties;
type MemberAddMessage = messages.agent.MemberAdd.$Properties;
type SnapshotReadMessage = messages.agent.SnapshotRead.$Properties;

type MemberAdd = Extract<RequestBody, { kind: 'member_add' }>;
type TransferLeader = Extract<RequestBody, { kind: 'transfer_leader' }>;
type SnapshotRead = Extract<RequestBody, { kind: 'snapshot_read' }>;

// ---- requests ----

export function memberAddToMessage({ name, peersAddress, agentsUrl, replaces }: MemberAdd): MemberAddMessage {
  return { name, peersAddress, agentsUrl, replaces: replaces ?? 0 };
}

export function memberAddFromMessage(message: MemberAddMessage): MemberAdd {
  const replaces = incoming(message.replaces, 'member_add.replaces');
  return {
    kind: 'member_add',
    name: message.name ?? '',
    peersAddress: message.peersAddress ?? '',
    agentsUrl: message.agentsUrl ?? '',
    ...(replaces === 0 ? undefined : { replaces }),
  };
}

export function transferLeaderFromMessage(
  message: messages.agent.TransferLeader.$Properties,
): TransferLeader {
  const member = incoming(message.member, 'transfer_leader.member');
  return member === 0 ? { kind: 'transfer_leader' } : { kind: 'transfer_leader', member };
}

export function snapshotReadToMessage({ snapshot, part }: SnapshotRead): SnapshotReadMessage {
  return { snapshot: snapshot ?? 0, part };
}

export function snapshotReadFromMessage(message: SnapshotReadMessage): SnapshotRead {
  const snapshot = incoming(message.snapshot, 'snapshot_read.snapshot');
  const part = incoming(message.part, 'snapshot_read.part');
  return snapshot === 0 ? { kind: 'snapshot_read', part } : { kind: 'snapshot_read', snapshot, part };
}

// ---- status ----

export function statusToMessage(status: ClusterStatus): StatusMessage {
  const { clusterId, epoch, revision, serverId, members } = status;
  return {
    clusterId,
    epoch: outgoing(epoch),
    revision: outgoing(revision),
    serverId: outgoing(serverId),
    members: members.map((member) => ({
      id: outgoing(member.id),
      name: member.name,
      role: member.role,
      term: outgoing(member.term),
      commitIndex: outgoing(member.commitIndex),
      appliedIndex: outgoing(member.appliedIndex),
      keys: outgoing(member.keys),
      connections: outgoing(member.connections),
      agentsUrl: member.agentsUrl,
      version: member.version,
      ...(member.heardMsAgo === undefined ? undefined : { heardMsAgo: outgoing(member.heardMsAgo) }),
      lag: outgoing(member.lag),
      ...(member.draining && { draining: true }),
    })),
  };
}

export function statusFromMessage(message: StatusMessage): ClusterStatus {
  return {
    clusterId: message.clusterId ?? '',
    epoch: incoming(message.epoch, 'answer.status.epoch'),
    revision: incoming(message.revision, 'answer.status.revision'),
    serverId: incoming(message.serverId, 'answer.status.server_id'),
    members: (message.members ?? []).map(memberStatusFromMessage),
  };
}

function memberStatusFromMessage(message: MemberStatusMessage): MemberStatus {
  const field = 'answer.status.members';
  return {
    id: incoming(message.id, `${field}.id`),
    name: message.name ?? '',
    role: message.role ?? '',
    term: incoming(message.term, `${field}.term`),
    commitIndex: incoming(message.commitIndex, `${field}.commit_index`),
    appliedIndex: incoming(message.appliedIndex, `${field}.applied_index`),
    keys: incoming(message.keys, `${field}.keys`),
    connections: incoming(message.connections, `${field}.connections`),
    agentsUrl: message.agentsUrl ?? '',
    version: message.version ?? '',
    heardMsAgo:
      message.heardMsAgo === undefined || message.heardMsAgo === null
        ? undefined
        : incoming(message.heardMsAgo, `${field}.heard_ms_ago`),
    lag: incoming(message.lag, `${field}.lag`),
    ...(message.draining === true && { draining: true }),
  };
}

// ---- members ----

export function memberListToMessage({ members, changePending, leader }: MemberList): MemberListMessage {
  return {
    members: members.map((member) => ({
      id: outgoing(member.id),
      name: member.name,
      peersAddress: member.peersAddress,
      agentsUrl: member.agentsUrl,
      standing: member.standing,
      wanted: member.wanted,
      reachable: member.reachable,
      lag: outgoing(member.lag),
      joined: member.joined,
      ...(member.draining && { draining: true }),
    })),
    changePending,
    leader: outgoing(leader ?? 0),
  };
}

export function memberListFromMessage(message: MemberListMessage): MemberList {
  const members = (message.members ?? []).map(memberFromMessage);
  for (const [index, { id }] of members.entries()) {
    const before = members[index - 1]?.id ?? 0;
    if (id <= before) throw malformed('answer.member_list.members', `has ${id} after ${before}`);
  }
  const leader = incoming(message.leader, 'answer.member_list.leader');
  return {
    members,
    changePending: message.changePending ?? false,
    leader: leader === 0 ? undefined : leader,
  };
}

const standings = ['voter', 'learner', 'joining', 'leaving'] as const;
const wishes = ['voter', 'learner', 'removed'] as const;

function memberFromMessage(message: MemberMessage): Member {
  const field = 'answer.member_list.members';
  return {
    id: incoming(message.id, `${field}.id`),
    name: message.name ?? '',
    peersAddress: message.peersAddress ?? '',
    agentsUrl: message.agentsUrl ?? '',
    standing: oneOf(standings, message.standing ?? '', `${field}.standing`),
    wanted: oneOf(wishes, message.wanted ?? '', `${field}.wanted`),
    reachable: message.reachable ?? false,
    lag: incoming(message.lag, `${field}.lag`),
    joined: message.joined ?? false,
    ...(message.draining === true && { draining: true }),
  };
}

function oneOf<T extends string>(known: readonly T[], word: string, field: string): T {
  const found = known.find((one) => one === word);
  if (found === undefined) throw malformed(field, `is ${shown(word)}: known are ${known.join(', ')}`);
  return found;
}

/** The id of a member that an answer is about. */
export function memberIdFromMessage(member: number | null | undefined, field: string): number {
  const id = incoming(member, field);
  if (id === 0) throw malformed(field, 'is missing');
  return id;
}

// ---- snapshots ----

export function snapshotPartToMessage(part: SnapshotReadPart): SnapshotPartMessage {
  return {
    snapshot: outgoing(part.snapshot),
    part: outgoing(part.part),
    records: part.records,
    checksum: outgoing(part.checksum),
    last: part.last,
    recordsTotal: outgoing(part.recordsTotal),
    clusterId: part.clusterId,
    epoch: outgoing(part.epoch),
    revision: outgoing(part.revision),
    index: outgoing(part.index),
    term: outgoing(part.term),
  };
}

export function snapshotPartFromMessage(message: SnapshotPartMessage): SnapshotReadPart {
  const field = 'answer.snapshot_part';
  const snapshot = incoming(message.snapshot, `${field}.snapshot`);
  if (snapshot === 0) throw malformed(`${field}.snapshot`, 'is missing');
  return {
    snapshot,
    part: incoming(message.part, `${field}.part`),
    records: copyBytes(message.records ?? new Uint8Array()),
    checksum: incoming(message.checksum, `${field}.checksum`),
    last: message.last ?? false,
    recordsTotal: incoming(message.recordsTotal, `${field}.records_total`),
    clusterId: message.clusterId ?? '',
    epoch: incoming(message.epoch, `${field}.epoch`),
    revision: incoming(message.revision, `${field}.revision`),
    index: incoming(message.index, `${field}.index`),
    term: incoming(message.term, `${field}.term`),
  };
}

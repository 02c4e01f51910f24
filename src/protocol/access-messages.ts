/** What is asked and told about policies and revocations as agent.proto's messages and back. */
import type { Revocation } from '../scopes/index.ts';
import { copyBytes } from './bytes.ts';
import type { AccessState, RequestBody } from './frames.ts';
import { given, incoming, incomingOptional, malformed, outgoing } from './future-messages.ts';
import type { messages } from './messages.ts';

type RevocationMessage = messages.agent.Revocation.$Properties;
type AclApplyMessage = messages.agent.AclApply.$Properties;
type AclRevokeMessage = messages.agent.AclRevoke.$Properties;
type AclStateMessage = messages.agent.AclState.$Properties;

const noBytes = new Uint8Array();

export function revocationToMessage(revocation: Revocation): RevocationMessage {
  const { realm } = revocation;
  switch (revocation.kind) {
    case 'certificate':
      return { realm, serial: revocation.serial };
    case 'principal':
      return { realm, name: revocation.name };
    case 'token':
      return { realm, tokenId: revocation.tokenId };
    case 'issued_before':
      return { realm, issuedBefore: { atMs: outgoing(revocation.atMs), name: revocation.name ?? '' } };
    default:
      return revocation satisfies never;
  }
}

/** Throws PROTOCOL_ERROR for what says nothing to revoke. */
export function revocationFromMessage(
  message: RevocationMessage | null | undefined,
  field: string,
): Revocation {
  const realm = message?.realm ?? '';
  if (given(message?.serial)) return { kind: 'certificate', realm, serial: message.serial };
  if (given(message?.name)) return { kind: 'principal', realm, name: message.name };
  if (given(message?.tokenId)) return { kind: 'token', realm, tokenId: message.tokenId };
  if (!given(message?.issuedBefore))
    throw malformed(field, 'is missing, or has none of serial, name, token_id and issued_before');
  const atMs = incoming(message.issuedBefore.atMs, `${field}.issued_before.at_ms`);
  const name = message.issuedBefore.name ?? '';
  return { kind: 'issued_before', realm, atMs, ...(name !== '' && { name }) };
}

export function aclApplyFromMessage(message: AclApplyMessage): Extract<RequestBody, { kind: 'acl_apply' }> {
  const ifRevision = incomingOptional(message.ifRevision, 'acl_apply.if_revision');
  return {
    kind: 'acl_apply',
    document: copyBytes(message.document ?? noBytes),
    ...(ifRevision !== undefined && { ifRevision }),
    force: message.force ?? false,
  };
}

export function aclRevokeFromMessage(
  message: AclRevokeMessage,
): Extract<RequestBody, { kind: 'acl_revoke' }> {
  const untilMs = incoming(message.untilMs, 'acl_revoke.until_ms');
  const revocation = revocationFromMessage(message.revocation, 'acl_revoke.revocation');
  return { kind: 'acl_revoke', revocation, ...(untilMs !== 0 && { untilMs }) };
}

export function accessToMessage({ revision, document, revocations }: AccessState): AclStateMessage {
  return {
    revision: outgoing(revision),
    document,
    revocations: revocations.map((record) => ({
      revocation: revocationToMessage(record.revocation),
      revision: outgoing(record.revision),
      untilMs: outgoing(record.untilMs ?? 0),
    })),
  };
}

export function accessFromMessage(message: AclStateMessage): AccessState {
  const field = 'answer.acl_state';
  return {
    revision: incoming(message.revision, `${field}.revision`),
    document: copyBytes(message.document ?? noBytes),
    revocations: (message.revocations ?? []).map((record) => {
      const untilMs = incoming(record.untilMs, `${field}.revocations.until_ms`);
      return {
        revocation: revocationFromMessage(record.revocation, `${field}.revocations.revocation`),
        revision: incoming(record.revision, `${field}.revocations.revision`),
        untilMs: untilMs === 0 ? undefined : untilMs,
      };
    }),
  };
}

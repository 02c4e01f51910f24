/** Subjects, and the commands about access, as log.proto's messages and back. */
import {
  FuturestoreError,
  incoming,
  incomingOptional,
  type messages,
  outgoing,
  revocationFromMessage,
  revocationToMessage,
} from '../protocol/index.ts';
import type { Credential } from '../scopes/index.ts';
import { isGiven, unreachable } from './assert.ts';
import type { AccessCommand, Subject } from './types.ts';

type SubjectMessage = messages.log.Subject.$Properties;
export type AccessCommandMessage = Pick<
  messages.log.Command.$Properties,
  'aclApply' | 'aclRevoke' | 'aclRestore'
>;

const noBytes = new Uint8Array(0);

export const subjectToMessage = ({ principal, credential }: Subject): SubjectMessage => {
  const { certificate, token } = credential;
  return {
    realm: principal.realm,
    name: principal.name,
    variables: Object.entries(principal.variables ?? {})
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ({ name, value })),
    serial: certificate?.serial ?? '',
    certificateIssuedAtMs: outgoing(Math.max(0, certificate?.issuedAtMs ?? 0)),
    hasToken: token !== undefined,
    tokenId: token?.id ?? '',
    tokenIssuedAtMs: outgoing(Math.max(0, token?.issuedAtMs ?? 0)),
  };
};

/** Throws PROTOCOL_ERROR for nobody. */
export const subjectFromMessage = (message: SubjectMessage | null | undefined, field: string): Subject => {
  const realm = message?.realm ?? '';
  const name = message?.name ?? '';
  if (message === null || message === undefined || realm === '' || name === '')
    throw new FuturestoreError('PROTOCOL_ERROR', `${field} is nobody`);
  const variables = message.variables ?? [];
  const credential: Credential = {
    realm,
    name,
    ...(isGiven(message.serial) &&
      message.serial !== '' && {
        certificate: {
          serial: message.serial,
          issuedAtMs: incoming(message.certificateIssuedAtMs, `${field}.certificate_issued_at_ms`),
        },
      }),
    ...(message.hasToken === true && {
      token: {
        issuedAtMs: incoming(message.tokenIssuedAtMs, `${field}.token_issued_at_ms`),
        ...(isGiven(message.tokenId) && message.tokenId !== '' && { id: message.tokenId }),
      },
    }),
  };
  return {
    principal: {
      realm,
      name,
      ...(variables.length > 0 && {
        variables: Object.fromEntries(variables.map((one) => [one.name ?? '', one.value ?? ''])),
      }),
    },
    credential,
  };
};

export const accessCommandToMessage = (command: AccessCommand): AccessCommandMessage => {
  const by = subjectToMessage(command.by);
  switch (command.kind) {
    case 'acl_apply': {
      const { document, ifRevision, strictQuotas } = command;
      return {
        aclApply: {
          by,
          document,
          ...(ifRevision !== undefined && { ifRevision: outgoing(ifRevision) }),
          ...(strictQuotas && { strictQuotas }),
        },
      };
    }
    case 'acl_revoke': {
      const { revocation, untilMs } = command;
      return {
        aclRevoke: { by, revocation: revocationToMessage(revocation), untilMs: outgoing(untilMs ?? 0) },
      };
    }
    case 'acl_restore':
      return { aclRestore: { by, revocation: revocationToMessage(command.revocation) } };
    default:
      return unreachable(command, 'a command about access');
  }
};

/** undefined: it is none. */
export const accessCommandFromMessage = ({
  aclApply,
  aclRevoke,
  aclRestore,
}: AccessCommandMessage): AccessCommand | undefined => {
  if (isGiven(aclApply)) {
    const ifRevision = incomingOptional(aclApply.ifRevision, 'acl_apply.if_revision');
    return {
      kind: 'acl_apply',
      by: subjectFromMessage(aclApply.by, 'acl_apply.by'),
      document: new Uint8Array(aclApply.document ?? noBytes),
      ...(ifRevision !== undefined && { ifRevision }),
      ...(aclApply.strictQuotas === true && { strictQuotas: true }),
    };
  }
  if (isGiven(aclRevoke)) {
    const untilMs = incoming(aclRevoke.untilMs, 'acl_revoke.until_ms');
    return {
      kind: 'acl_revoke',
      by: subjectFromMessage(aclRevoke.by, 'acl_revoke.by'),
      revocation: revocationFromMessage(aclRevoke.revocation, 'acl_revoke.revocation'),
      ...(untilMs !== 0 && { untilMs }),
    };
  }
  if (isGiven(aclRestore)) {
    return {
      kind: 'acl_restore',
      by: subjectFromMessage(aclRestore.by, 'acl_restore.by'),
      revocation: revocationFromMessage(aclRestore.revocation, 'acl_restore.revocation'),
    };
  }
  return undefined;
};

/** Who may speak on a link that was made to this server: decided at its hello. */
import type { LinkOptions } from './options.ts';
import type { Members } from './members.ts';
import { peerProtocolVersion, peerProtocolVersionMin } from './peer-codec.ts';
import type { PeerHello } from './peer-codec.ts';
import type { PeerAddress, PeerPresence, PeerRefusal } from './types.ts';

export type Admission =
  | { readonly kind: 'peer'; readonly peer: PeerAddress }
  /** It is told why. */
  | { readonly kind: 'refused'; readonly refusal: PeerRefusal }
  /** The certificate is no member's: it is told nothing. */
  | { readonly kind: 'stranger'; readonly reason: string };

const refused = (reason: string): Admission => ({ kind: 'refused', refusal: { reason, removed: false } });

const presenceOf = ({ run, diskId, standing }: PeerHello): PeerPresence =>
  standing === undefined ? { run, diskId } : { run, diskId, standing };

const judge = (options: LinkOptions, members: Members, name: string, hello: PeerHello): Admission => {
  const { clusterId, memberId, memberName, acceptPeer } = options;
  const { version, from, to } = hello;
  if (version < peerProtocolVersionMin || version > peerProtocolVersion) {
    const known = `${peerProtocolVersionMin} to ${peerProtocolVersion} are`;
    return refused(`version ${version} of the protocol is not known here, ${known}`);
  }
  if (hello.clusterId !== clusterId)
    return refused(`this is cluster "${clusterId}", not "${hello.clusterId}"`);
  if (to !== memberId) return refused(`this is member ${memberId} ("${memberName}"), not ${to}`);

  const peer = members.get(from);
  if (peer?.name === name) {
    const refusal = acceptPeer?.(from, presenceOf(hello));
    return refusal === undefined ? { kind: 'peer', peer } : { kind: 'refused', refusal };
  }
  // A member that has been removed is in no list any more, and its name may be its successor's now.
  if (peer === undefined && from !== memberId) {
    const refusal = acceptPeer?.(from, presenceOf(hello));
    if (refusal?.removed === true) return { kind: 'refused', refusal };
  }
  const namesakes = members.named(name).map(({ id }) => id);
  return refused(`the certificate is of "${name}", which is member ${namesakes.join(' and ')}, not ${from}`);
};

/** `name`: of the certificate, which has been verified. Nothing in the hello is believed without it. */
export const admissionOf = (
  options: LinkOptions,
  members: Members,
  name: string,
  hello: PeerHello,
): Admission => {
  const admission = judge(options, members, name, hello);
  const stranger =
    admission.kind === 'refused' && !admission.refusal.removed && members.named(name).length === 0;
  return stranger ? { kind: 'stranger', reason: 'no member has this name' } : admission;
};

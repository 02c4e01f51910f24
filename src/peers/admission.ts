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

/** `name`: of its certificate. */
const presenceOf = (name: string, { run, diskId, standing, lineage, address }: PeerHello): PeerPresence => ({
  run,
  diskId,
  ...(standing && { standing }),
  ...(lineage && { lineage }),
  ...(address !== undefined && { introduction: { name, address } }),
});

/** `name`: of the certificate, which has been verified. Nothing in the hello is believed without it. */
export const admissionOf = (
  options: LinkOptions,
  members: Members,
  name: string,
  hello: PeerHello,
): Admission => {
  const { clusterId, memberId, memberName, acceptPeer } = options;
  const { version, from, to } = hello;
  const refuse = (reason: string): Admission =>
    members.named(name).length === 0
      ? { kind: 'stranger', reason: 'no member has this name' }
      : { kind: 'refused', refusal: { reason, removed: false } };
  if (version < peerProtocolVersionMin || version > peerProtocolVersion) {
    const known = `${peerProtocolVersionMin} to ${peerProtocolVersion} are`;
    return refuse(`version ${version} of the protocol is not known here, ${known}`);
  }
  if (hello.clusterId !== clusterId)
    return refuse(`this is cluster "${clusterId}", not "${hello.clusterId}"`);
  if (to !== memberId) return refuse(`this is member ${memberId} ("${memberName}"), not ${to}`);

  const namesakes = members.named(name).map(({ id }) => id);
  const mismatch = `the certificate is of "${name}", which is member ${namesakes.join(' and ')}, not ${from}`;
  if (from === memberId || (members.get(from)?.name ?? name) !== name) return refuse(mismatch);
  const refusal = acceptPeer?.(from, presenceOf(name, hello));
  if (refusal !== undefined) return { kind: 'refused', refusal };
  // In no list before, it may be in one now.
  const peer = members.get(from);
  return peer?.name === name ? { kind: 'peer', peer } : refuse(mismatch);
};

/**
 * Whether the peer on a link that is open may still take part: what is known of its disk may be more than at its hello.
 */
export const renewedRefusalOf = (
  { acceptPeer }: LinkOptions,
  peer: PeerAddress,
  hello: PeerHello,
): PeerRefusal | undefined => acceptPeer?.(peer.id, presenceOf(peer.name, hello));

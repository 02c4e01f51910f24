/** What goes to the peers: one frame each at the end of a turn, and commands for the leader. */
import type { NumberedOrder, NumberedOutcome, PeerStatus, PeerTransport } from '../peers/index.ts';
import { asMemberId, type MemberId, type Message, type SoftState } from '../raft/index.ts';

export interface OutgoingOptions {
  readonly transport: PeerTransport;
  readonly soft: () => SoftState;
  readonly clusterMs: () => number;
  /** Messages to it could not be sent. */
  readonly onUnreachable: (peer: MemberId) => void;
}

export class Outgoing {
  readonly #options: OutgoingOptions;
  #messages = new Map<MemberId, Message[]>();

  constructor(options: OutgoingOptions) {
    this.#options = options;
  }

  post(message: Message): void {
    const messages = this.#messages.get(message.to);
    if (messages) messages.push(message);
    else this.#messages.set(message.to, [message]);
  }

  flush(): void {
    if (this.#messages.size === 0) return;
    const { transport, soft, clusterMs, onUnreachable } = this.#options;
    const all = this.#messages;
    this.#messages = new Map();
    const leaderTime = soft().role === 'leader' ? { leaderTimeMs: clusterMs() } : {};
    for (const [peer, raft] of all) {
      if (!transport.send(peer, { raft, forward: [], forwardTerm: 0, ...leaderTime })) onUnreachable(peer);
    }
  }

  /** false: there is no leader, or no link to it. */
  forward(forward: readonly Uint8Array[]): boolean {
    const { leader, term } = this.#options.soft();
    return (
      leader !== undefined && this.#options.transport.send(leader, { raft: [], forward, forwardTerm: term })
    );
  }

  /** Asks the leader to hand over. false: there is no leader, or no link to it. */
  transferTo(target: number): boolean {
    const { leader } = this.#options.soft();
    if (leader === undefined) return false;
    const transferTo = asMemberId(target);
    return this.#options.transport.send(leader, { raft: [], forward: [], forwardTerm: 0, transferTo });
  }

  /** false: there is no link to it, or its version of the protocol knows no such orders. */
  order(peer: number, agentsOrder: NumberedOrder): boolean {
    return this.#options.transport.send(asMemberId(peer), {
      raft: [],
      forward: [],
      forwardTerm: 0,
      agentsOrder,
    });
  }

  tellOutcome(peer: number, agentsOutcome: NumberedOutcome): void {
    this.#options.transport.send(asMemberId(peer), { raft: [], forward: [], forwardTerm: 0, agentsOutcome });
  }

  tellStatus(peers: readonly number[], status: PeerStatus): void {
    for (const peer of peers) {
      this.#options.transport.send(asMemberId(peer), { raft: [], forward: [], forwardTerm: 0, status });
    }
  }
}

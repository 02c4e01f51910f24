import type { MemberId } from '../raft/index.ts';
import type { PeerAddress } from './types.ts';

/** The other members as the server last gave them. */
export class Members {
  readonly #self: MemberId;
  #byId: ReadonlyMap<MemberId, PeerAddress> = new Map();

  constructor(self: MemberId, members: readonly PeerAddress[]) {
    this.#self = self;
    this.replace(members);
  }

  replace(members: readonly PeerAddress[]): void {
    this.#byId = new Map(members.filter(({ id }) => id !== this.#self).map((member) => [member.id, member]));
  }

  get(id: MemberId): PeerAddress | undefined {
    return this.#byId.get(id);
  }

  all(): Iterable<PeerAddress> {
    return this.#byId.values();
  }

  /** Several while one member replaces another under its certificate. */
  named(name: string): readonly PeerAddress[] {
    return [...this.#byId.values()].filter((member) => member.name === name);
  }

  /** Whether links made with `peer` are still links with a member. Its address may be another now. */
  includes(peer: PeerAddress): boolean {
    return this.#byId.get(peer.id)?.name === peer.name;
  }
}

/** What is known of the cluster's servers: the run and disk that each has announced, and the last change it asked for. */
import type { ServerState } from './state-codec.ts';

export class ServerTable {
  readonly #servers = new Map<number, ServerState>();
  readonly #dirty = new Set<number>();

  get size(): number {
    return this.#servers.size;
  }

  find(member: number): ServerState | undefined {
    return this.#servers.get(member);
  }

  all(): IterableIterator<ServerState> {
    return this.#servers.values();
  }

  put(server: ServerState): void {
    this.#servers.set(server.member, server);
    this.#dirty.add(server.member);
  }

  /** As `put`, of what is on disk. */
  load(server: ServerState): void {
    this.#servers.set(server.member, server);
  }

  remove(member: number): void {
    if (this.#servers.delete(member)) this.#dirty.add(member);
  }

  /** Visits every server that changed or left since the last call, once; undefined: it has left. */
  takeDirty(visit: (member: number, server: ServerState | undefined) => void): void {
    for (const member of this.#dirty) visit(member, this.#servers.get(member));
    this.#dirty.clear();
  }
}

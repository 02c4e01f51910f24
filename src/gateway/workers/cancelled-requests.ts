/**
 * What was cancelled here, as long as the server may not know of it yet. Its client may have used the number again by
 * then: what the server says of it means the one before.
 */
import type { ConnectionId, GatewayEvent } from '../../server/index.ts';

interface Cancelled {
  readonly connection: ConnectionId;
  readonly request: number;
}

const nameOf = (connection: ConnectionId, request: number): string => `${connection} ${request}`;

export class CancelledRequests {
  /** How often: the number may have been used and cancelled several times. */
  readonly #counts = new Map<string, number>();

  add({ connection, request }: Cancelled): void {
    const name = nameOf(connection, request);
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  /** The server has taken one. */
  confirmed(connection: ConnectionId, request: number): void {
    const name = nameOf(connection, request);
    const count = this.#counts.get(name) ?? 0;
    if (count > 1) this.#counts.set(name, count - 1);
    else this.#counts.delete(name);
  }

  /** Whether it is about one of them. */
  has(event: GatewayEvent): boolean {
    if (this.#counts.size === 0) return false;
    switch (event.kind) {
      case 'answer':
        return this.#counts.has(nameOf(event.connection, event.request));
      case 'push':
      case 'ended':
        return this.#counts.has(nameOf(event.connection, event.subscription));
      case 'access':
      case 'progress':
      case 'sessions_opened':
      case 'standing':
      case 'ticket_keys':
        return false;
      default:
        return event satisfies never;
    }
  }
}

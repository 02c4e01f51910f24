/** What an agent follows: it reads, slowly at times, leaves, and comes back where it was. */
import type { Client, Position, Subscription, SubscriptionEvent } from '../client/index.ts';
import type { AgentWorld } from './agent.ts';
import { seenOf } from './agent-records.ts';
import type { Life } from './clock.ts';
import type { Random } from './random.ts';

/** Whose they are, as it is at the moment. */
export interface SubscriptionOwner {
  readonly id: number;
  readonly lives: number;
  readonly quiet: boolean;
  readonly closing: boolean;
  /** The error follows from policies or revocations. */
  readonly refused: (error: unknown) => boolean;
}

interface Following {
  readonly name: string;
  readonly patterns: readonly string[];
  readonly slowMs: number;
  readonly reader: Subscription;
}

const describeEvent = ({
  name,
  event,
}: {
  readonly name: string;
  readonly event: SubscriptionEvent;
}): string =>
  event.kind === 'future' || event.kind === 'deleted'
    ? `${name}: ${event.kind} ${event.key} @${event.revision}`
    : `${name}: ${event.kind} @${event.position.revision}`;

export class AgentSubscriptions {
  readonly #owner: SubscriptionOwner;
  readonly #world: AgentWorld;
  readonly #random: Random;
  readonly #readers = new Set<string>();
  #count = 0;

  constructor(owner: SubscriptionOwner, world: AgentWorld, random: Random) {
    this.#owner = owner;
    this.#world = world;
    this.#random = random;
  }

  /** Nothing is promised to them any more. */
  end(): void {
    for (const reader of this.#readers) this.#world.feed.end(reader);
    this.#readers.clear();
  }

  /** One more, to patterns of its choice; none where the client is closed. */
  begin(life: Life, client: Client): void {
    if (client.state.kind === 'closed') return;
    const random = this.#random;
    const patterns = random.chance(0.7) ? ['k/**'] : ['k/1', 'k/2', `k/${random.whole(1, 20)}`, 'none/*'];
    const slowMs = random.chance(0.3) ? random.whole(5, 400) : 0;
    const unique = [...new Set(patterns)];
    const name = this.#reader(unique, 'present');
    this.#read(life, client, { name, patterns: unique, slowMs, reader: client.subscribe(unique) });
  }

  #read(life: Life, client: Client, following: Following): void {
    const world = this.#world;
    const { name, reader, slowMs } = following;
    reader.next().then(
      (result) => {
        if (!life.alive || result.done === true || this.#owner.closing) return;
        const event = result.value;
        world.operations.add(`push: ${event.kind}`);
        world.trace.note(describeEvent, { name, event });
        world.judge(() => {
          world.feed.event(name, event);
          if (event.kind === 'future') world.answers.shown(event.key, seenOf(event.future), name);
        });
        if (!this.#owner.quiet && this.#random.chance(0.01)) this.#leave(life, client, following);
        else if (slowMs === 0 || this.#owner.quiet) this.#read(life, client, following);
        else {
          world.time.after(slowMs, life, 'timer', () => {
            if (!this.#owner.closing) this.#read(life, client, following);
          });
        }
      },
      (error: unknown) => {
        if (!life.alive || this.#owner.closing) return;
        if (!this.#owner.refused(error)) world.fail('feed', `${name} ended: ${String(error)}`);
        else this.#refused(life, client, following);
      },
    );
  }

  /** Leaves and comes back where it was. */
  #leave(life: Life, client: Client, following: Following): void {
    const world = this.#world;
    const { position } = following.reader;
    void following.reader.return();
    // A position in the middle of a revision repeats that revision: the new reader is judged by itself.
    world.feed.end(following.name);
    this.#readers.delete(following.name);
    if (position === undefined) this.begin(life, client);
    else this.#resume(life, client, following, position);
  }

  #resume(life: Life, client: Client, following: Following, position: Position): void {
    const world = this.#world;
    world.time.after(this.#random.whole(1, 3000), life, 'timer', () => {
      if (this.#owner.closing || client.state.kind === 'closed') return;
      world.operations.add('subscription resumed');
      const name = this.#reader(following.patterns, position.revision);
      const reader = client.subscribe(following.patterns, { from: position });
      this.#read(life, client, { ...following, name, reader });
    });
  }

  /** It may be allowed again later. Who is revoked has to be started anew. */
  #refused(life: Life, client: Client, following: Following): void {
    const world = this.#world;
    const { position } = following.reader;
    world.operations.add('subscription refused');
    world.feed.end(following.name);
    this.#readers.delete(following.name);
    if (client.state.kind === 'closed') return;
    if (position !== undefined) {
      this.#resume(life, client, following, position);
      return;
    }
    world.time.after(this.#random.whole(1, 3000), life, 'timer', () => {
      if (!this.#owner.closing) this.begin(life, client);
    });
  }

  #reader(patterns: readonly string[], from: number | 'present'): string {
    this.#count += 1;
    const name = `subscription ${this.#owner.id}.${this.#owner.lives}.${this.#count}`;
    this.#world.feed.begin(name, patterns, from);
    this.#readers.add(name);
    this.#world.trace.say(`${name} begins at ${from}`);
    return name;
  }
}

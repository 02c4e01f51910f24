import type { Entry } from '../../../src/raft/index.ts';

/** What the cluster replicates. Anything deterministic fits: the tests of the store put the store here. */
export interface Machine {
  apply(entry: Entry): void;
  /** All of the state. */
  snapshot(): Uint8Array;
  restore(snapshot: Uint8Array): void;
  /** Equal exactly where the states are equal. */
  digest(): string;
}

/** The list of the commands that were applied. */
export class ListMachine implements Machine {
  #items: string[] = [];
  #hash = 0;

  get items(): readonly string[] {
    return this.#items;
  }

  apply(entry: Entry): void {
    if (entry.kind === 'commands') this.#add(Buffer.from(entry.payload).toString());
  }

  snapshot(): Uint8Array {
    return Buffer.from(JSON.stringify(this.#items));
  }

  restore(snapshot: Uint8Array): void {
    this.#items = [];
    this.#hash = 0;
    const items: unknown = JSON.parse(Buffer.from(snapshot).toString());
    if (!Array.isArray(items)) throw new Error('a snapshot of a ListMachine is a list');
    for (const item of items) this.#add(String(item));
  }

  digest(): string {
    return `${this.#items.length}:${this.#hash}`;
  }

  #add(item: string): void {
    this.#items.push(item);
    for (const character of `${item}\n`) {
      this.#hash = (Math.imul(this.#hash, 31) + (character.codePointAt(0) ?? 0)) | 0;
    }
  }
}

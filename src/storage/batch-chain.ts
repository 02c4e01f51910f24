/**
 * LevelDB drops damaged records of its log in silence when it recovers. So every batch carries a link: it puts the
 * record of its own number and removes the one before it. If all batches of a lane survived, or all but some at
 * the end, exactly one record is left. A batch lost from the middle did not remove its predecessor's, and nobody
 * else ever does: the gap shows at every later start. Losses at the end show by comparison with a number kept
 * elsewhere.
 *
 * Two lanes, because writes and the staging of a snapshot go on at the same time and LevelDB orders them as it likes.
 */
import type { Engine, EngineBatch } from './engine.ts';
import { allRows } from './engine.ts';
import { batchKey, batchRange } from './keyspaces.ts';
import { damaged } from './damage.ts';
import { decoded, decodePair, encodePair } from './records.ts';

export type Lane = 'writes' | 'staging';

export class BatchChain {
  readonly #lane: Lane;
  #number: number;
  #note: number;

  constructor(lane: Lane, number: number, note: number) {
    this.#lane = lane;
    this.#number = number;
    this.#note = note;
  }

  /** The last batch's; 0: none yet. */
  get number(): number {
    return this.#number;
  }

  /** The number that the last batch's writer left with it. */
  get note(): number {
    return this.#note;
  }

  /** Makes the batch the next of its lane. Batches of a lane must be written one after the other. */
  link(batch: EngineBatch, note: number): number {
    const number = this.#number + 1;
    const key = batchKey(this.#lane, number);
    batch.put(key, encodePair(key, number, note));
    if (this.#number > 0) batch.remove(batchKey(this.#lane, this.#number));
    this.#number = number;
    this.#note = note;
    return number;
  }

  static async recover(engine: Engine, lane: Lane): Promise<BatchChain> {
    const rows = await allRows(engine, batchRange(lane));
    const links = rows.map(([key, value]) => decoded(engine.where, key, value, decodePair));
    const [first, second] = links;
    if (first !== undefined && second !== undefined) {
      throw damaged(
        engine.where,
        `the batch after number ${first[0]} of the ${lane} is missing, later ones are there`,
      );
    }
    const [number, note] = first ?? [0, 0];
    return new BatchChain(lane, number, note);
  }
}

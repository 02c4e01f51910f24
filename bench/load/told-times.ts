/** How long after its scheduled time each change was told: the change's number and time are in its value. */
import { machineMs } from '../../test/support/light-client.ts';

const valueBytes = 256;

/** `scheduledAtMs`: by `machineMs`, so that another process can tell how long it took. */
export const changeValue = (number: number, scheduledAtMs: number): string =>
  `${number} ${scheduledAtMs.toFixed(3)} `.padEnd(valueBytes, 'v');

export class ToldTimes {
  /** By the change's number, in milliseconds; NaN: not told so far. */
  readonly ms: Float64Array;
  #told = 0;

  constructor(changes: number) {
    this.ms = new Float64Array(changes).fill(Number.NaN);
  }

  /** Different changes. */
  get told(): number {
    return this.#told;
  }

  take(value: string): void {
    const [number = '', scheduledAtMs = ''] = value.split(' ', 2);
    const index = Number(number);
    if (!Number.isNaN(this.ms[index])) return;
    this.ms[index] = machineMs() - Number(scheduledAtMs);
    this.#told += 1;
  }
}

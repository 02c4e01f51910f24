/** When what a server's peers have heard from it is remembered on all of their disks, so that no end of them forgets it. */
import type { Machine, Process } from './machine.ts';
import type { VirtualTime } from './clock.ts';

interface Hearing {
  readonly atMs: number;
  readonly by: ReadonlyMap<Machine, Process>;
}

interface RememberedOptions {
  readonly time: VirtualTime;
  /** By a server's own clock: it has several ticks within. */
  readonly heartbeatIntervalMs: number;
  /** Those who are to remember it now; undefined: not all of them have heard it, or are there. */
  readonly heardBy: () => readonly Machine[] | undefined;
}

/**
 * A server takes down what it has heard at each tick, with the next batch on disk; a write of that or a later batch that
 * is synced makes it last. Looked at from outside, by time: a server that stood still or was slow may have had no tick.
 */
export class Remembered {
  readonly #options: RememberedOptions;
  #hearing: Hearing | undefined;

  constructor(options: RememberedOptions) {
    this.#options = options;
  }

  /** Who remembers it by now, for good; undefined: not all. To be asked again and again. */
  by(): ReadonlySet<Machine> | undefined {
    const { heardBy, time } = this.#options;
    const machines = heardBy();
    if (machines === undefined || !machines.every(isQuick)) {
      this.#hearing = undefined;
      return undefined;
    }
    this.#hearing ??= { atMs: time.nowMs, by: processesOf(machines) };
    const { atMs, by } = this.#hearing;
    const goOn = (machine: Machine): boolean =>
      machine.process === by.get(machine) && machine.stoodStillMs < atMs;
    if (!machines.every(goOn)) {
      this.#hearing = undefined;
      return undefined;
    }
    const { heartbeatIntervalMs } = this.#options;
    const isSynced = ({ clock, syncedAsOfMs }: Machine): boolean =>
      syncedAsOfMs > atMs + clock.worldMs(heartbeatIntervalMs);
    return machines.every(isSynced) ? new Set(machines) : undefined;
  }
}

const isQuick = ({ clock }: Machine): boolean => clock.lookTakesMs === 0;

const processesOf = (machines: readonly Machine[]): Map<Machine, Process> => {
  const processes = new Map<Machine, Process>();
  for (const machine of machines) if (machine.process !== undefined) processes.set(machine, machine.process);
  return processes;
};

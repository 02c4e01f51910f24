import { undecidedShareMax } from './checks/index.ts';

/** What a run had in it: counted, so that a long run can say what it tried. */
export class Counts {
  readonly #counts = new Map<string, number>();

  add(name: string, by = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by);
  }

  get(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  merge(other: Readonly<Record<string, number>>): void {
    for (const [name, count] of Object.entries(other)) this.add(name, count);
  }

  toObject(): Record<string, number> {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

export interface Statistics {
  readonly seeds: number;
  readonly simulatedMs: number;
  /** Of this process, while it ran. */
  readonly processorMs: number;
  /** Until the healing: with faults and load. */
  readonly loaded: { readonly simulatedMs: number; readonly processorMs: number };
  readonly events: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly operations: Readonly<Record<string, number>>;
  readonly happenings: Readonly<Record<string, number>>;
  /** Whose histories were searched for an order that explains them, and for how many the search was given up. */
  readonly searched: { readonly keys: number; readonly undecided: number };
}

/** Of many runs. */
export class Totals {
  seeds = 0;
  simulatedMs = 0;
  processorMs = 0;
  events = 0;
  keys = 0;
  undecidedKeys = 0;
  readonly #undecidedSeeds: number[] = [];
  readonly #faults = new Counts();
  readonly #operations = new Counts();
  readonly #happenings = new Counts();

  add(seed: number, statistics: Statistics): void {
    const { searched } = statistics;
    this.keys += searched.keys;
    this.undecidedKeys += searched.undecided;
    if (searched.undecided > 0) this.#undecidedSeeds.push(seed);
    this.seeds += statistics.seeds;
    this.simulatedMs += statistics.simulatedMs;
    this.processorMs += statistics.processorMs;
    this.events += statistics.events;
    this.#faults.merge(statistics.faults);
    this.#operations.merge(statistics.operations);
    this.#happenings.merge(statistics.happenings);
  }

  /** What was not judged is no success; undefined: it is little enough. */
  get undecided(): string | undefined {
    if (this.undecidedKeys <= undecidedShareMax * this.keys) return undefined;
    return (
      `of ${this.keys} keys ${this.undecidedKeys} were not judged, more than one in ${1 / undecidedShareMax}: ` +
      `in seeds ${this.#undecidedSeeds.join(', ')}`
    );
  }

  /** For people. */
  table(realMs: number): string {
    const perProcessorSecond = this.processorMs === 0 ? 0 : this.simulatedMs / this.processorMs;
    const lines = [
      row('seeds', this.seeds),
      row('simulated hours', (this.simulatedMs / 3_600_000).toFixed(3)),
      row('real seconds', (realMs / 1000).toFixed(1)),
      row('processor seconds', (this.processorMs / 1000).toFixed(1)),
      row('simulated per processor second', `${perProcessorSecond.toFixed(1)} s`),
      row('events', this.events),
      row('keys searched for an order', this.keys),
      row('keys undecided', this.undecidedKeys),
      ...section('faults', this.#faults),
      ...section('operations', this.#operations),
      ...section('happenings', this.#happenings),
    ];
    return lines.join('\n');
  }
}

const row = (name: string, value: number | string): string =>
  `${name.padEnd(44)} ${String(value).padStart(12)}`;

const section = (title: string, counts: Counts): string[] => [
  '',
  title,
  ...Object.entries(counts.toObject()).map(([name, count]) => row(`  ${name}`, count)),
];

/** The agents of an example as a table: on a terminal it is drawn anew as things happen, elsewhere each event is a line. */
import { performance } from 'node:perf_hooks';

export interface Row {
  state: string;
  applied: number;
  awaited: string[];
  produced: string[];
  startMs: number | undefined;
  endMs: number | undefined;
}

/** Where it goes: a terminal, or anything that takes text. */
export type TableOutput = NodeJS.WritableStream & { readonly isTTY?: boolean };

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

const headings = ['AGENT', 'STATE', 'CHANGED', 'AWAITED', 'PRODUCED', 'TIME'];

export class LiveTable {
  readonly #output: TableOutput;
  readonly #rows = new Map<string, Row>();
  #lines = 0;
  /** The first agent's start. */
  #startMs: number | undefined;

  constructor(output: TableOutput, names: readonly string[]) {
    this.#output = output;
    for (const name of names) {
      this.#rows.set(name, {
        state: '',
        applied: 0,
        awaited: [],
        produced: [],
        startMs: undefined,
        endMs: undefined,
      });
    }
  }

  /** `what`: the event in words, where there is one to tell. */
  change(name: string, change: (row: Row) => void, what?: string): void {
    const row = this.#rows.get(name);
    if (row === undefined) return;
    change(row);
    this.#startMs ??= row.startMs;
    if (this.#output.isTTY) this.#draw(this.#cells(false));
    else if (what !== undefined) {
      this.#output.write(
        `${seconds(performance.now() - (this.#startMs ?? performance.now())).padStart(7)}  ${name.padEnd(8)} ${what}\n`,
      );
    }
  }

  /** The table as it is in the end, with all names of futures below. */
  finish(): void {
    this.#draw(this.#cells(true));
    this.#lines = 0;
  }

  #cells(whole: boolean): string[][] {
    const now = performance.now();
    return [...this.#rows].map(([name, row]) => [
      name,
      row.state,
      String(row.applied),
      this.#keys(row.awaited, whole),
      this.#keys(row.produced, whole),
      row.startMs === undefined ? '' : seconds((row.endMs ?? now) - row.startMs),
    ]);
  }

  /** The last one by name, where there is no room for all. */
  #keys(keys: readonly string[], whole: boolean): string {
    const last = keys.at(-1);
    if (last === undefined || whole) return String(keys.length);
    return `${keys.length} (${last.replace(/^nodes\//, '')})`;
  }

  #draw(rows: readonly (readonly string[])[]): void {
    const all = [headings, ...rows];
    const widths = headings.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
    const text = all
      .map((row) =>
        row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd(),
      )
      .map((line) => (this.#output.isTTY ? `\u001B[2K${line}` : line))
      .join('\n');
    if (this.#output.isTTY && this.#lines > 0) this.#output.write(`\u001B[${this.#lines}A`);
    this.#output.write(`${text}\n`);
    this.#lines = all.length;
  }
}

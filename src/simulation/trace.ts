/**
 * What happened, line by line. The last lines are always kept, as data: they become text only when somebody reads
 * them. Everything is kept, or handed on, when that is asked for.
 */

/** Writes what was noted as one line. */
export type Describe<Subject> = (subject: Subject) => string;

const keptLines = 512;

export class Trace {
  readonly #nowMs: () => number;
  readonly #sink: ((line: string) => void) | undefined;
  readonly #times: Float64Array;
  readonly #describers: Describe<never>[] = [];
  readonly #subjects: unknown[] = [];
  #next = 0;
  #count = 0;

  /** `sink` gets every line at once. */
  constructor(nowMs: () => number, sink?: (line: string) => void) {
    this.#nowMs = nowMs;
    this.#sink = sink;
    this.#times = new Float64Array(keptLines);
  }

  get lines(): number {
    return this.#count;
  }

  /** The subject must not change any more. */
  note<Subject>(describe: Describe<Subject>, subject: Subject): void {
    this.#count += 1;
    const nowMs = this.#nowMs();
    if (this.#sink !== undefined) this.#sink(lineOf(nowMs, describe(subject)));
    this.#times[this.#next] = nowMs;
    this.#describers[this.#next] = describe;
    this.#subjects[this.#next] = subject;
    this.#next = (this.#next + 1) % keptLines;
  }

  say(text: string): void {
    this.note(itself, text);
  }

  /** The last lines, oldest first. */
  last(count: number): string[] {
    const lines: string[] = [];
    const wanted = Math.min(count, this.#count, keptLines);
    for (let back = wanted; back > 0; back -= 1) {
      const at = (this.#next - back + keptLines) % keptLines;
      const describe = this.#describers[at] as Describe<unknown>;
      lines.push(lineOf(this.#times[at] ?? 0, describe(this.#subjects[at])));
    }
    return lines;
  }
}

const itself = (text: string): string => text;

const lineOf = (atMs: number, text: string): string => `${atMs.toFixed(3).padStart(12)} ${text}`;

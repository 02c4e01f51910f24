/**
 * What clients asked and what they were told: the only evidence the outside has. The simulator and the runs of
 * real processes both write it, one JSON object a line, so that any checker can judge it.
 */
import { writeFileSync } from 'node:fs';

/** One change of one key, as it was asked for. Durations are in milliseconds; what is absent was not given. */
export interface HistoryWrite {
  readonly kind: 'declare' | 'resolve' | 'reject' | 'delete' | 'touch';
  readonly key: string;
  /** declare: open the next generation, even of a settled one. */
  readonly renew?: boolean;
  /** declare: how long it may stay pending. */
  readonly deadlineMs?: number;
  /** declare: its producer's session going away rejects it. */
  readonly tied?: boolean;
  /** resolve: the value as text. */
  readonly value?: string;
  /** reject: the code of the rejection. */
  readonly code?: string;
  /** resolve, reject, touch: how long it stays fresh. */
  readonly ttlMs?: number;
  /** resolve, reject: may replace a resolved, fresh one. */
  readonly supersede?: boolean;
  readonly ifRevision?: number;
  readonly ifGeneration?: number;
  readonly ifAbsent?: boolean;
}

/** What a write was told of one key. */
export interface HistoryWritten {
  readonly generation: number;
  readonly state: 'pending' | 'resolved' | 'rejected' | 'expired';
  /** The key's. */
  readonly revision: number;
  readonly unchanged: boolean;
}

/** What a read, an await or a push showed of one key; `absent`: there is no such key. */
export type HistorySeen =
  | { readonly state: 'absent' }
  | {
      readonly state: 'pending' | 'resolved' | 'rejected' | 'expired';
      readonly generation: number;
      readonly revision: number;
      /** Resolved: the value as text. */
      readonly value?: string;
      /** Rejected: its code. */
      readonly code?: string;
      /** Cluster time from which on it is expired. */
      readonly expiresAtMs?: number;
      readonly deadlineAtMs?: number;
    };

/** The answer was an error with a code of the registry: then nothing happened, unless the code says otherwise. */
export interface HistoryError {
  readonly error: string;
}

interface Asked {
  /** A logical process. Nothing is concluded from it: only call and return times order operations. */
  readonly client: number;
  /** Virtual milliseconds; real ones where the processes are real. */
  readonly callMs: number;
  /** Absent: no answer came, up to the end of the run. */
  readonly returnMs?: number | undefined;
  /** Idempotency session and sequence of a write. */
  readonly session?: string;
  readonly sequence?: number;
}

/** One write of one key, one read, or several writes that happen together or not at all. */
export type HistoryOperation = Asked &
  (
    | {
        readonly kind: HistoryWrite['kind'];
        readonly key: string;
        readonly input: HistoryWrite;
        /** `unknown`: it may have happened at any time since its call, or never. */
        readonly output: HistoryWritten | HistoryError | 'unknown';
      }
    | {
        readonly kind: 'get';
        readonly key: string;
        readonly output: HistorySeen | HistoryError | 'unknown';
      }
    | {
        readonly kind: 'batch';
        /** At least two, each of another key; results are in their order. */
        readonly input: readonly HistoryWrite[];
        readonly output: readonly HistoryWritten[] | HistoryError | 'unknown';
      }
  );

/**
 * What a checker concludes of so many keys. `undecided`: for that many its bound on work was reached first, which is
 * neither good nor bad.
 */
export type Verdict =
  | { readonly kind: 'ok'; readonly keys: number }
  | { readonly kind: 'violated'; readonly explanation: string }
  | {
      readonly kind: 'undecided';
      readonly keys: number;
      readonly undecided: number;
      readonly explanation: string;
    };

export const formatHistory = (operations: readonly HistoryOperation[]): string =>
  operations.map((operation) => `${JSON.stringify(operation)}\n`).join('');

export const writeHistory = (file: string, operations: readonly HistoryOperation[]): void => {
  writeFileSync(file, formatHistory(operations));
};

/** Throws what `JSON.parse` throws on a damaged line, with its number. */
export const parseHistory = (text: string): HistoryOperation[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      try {
        return JSON.parse(line) as HistoryOperation;
      } catch (error) {
        throw new Error(`line ${index + 1} of the history is no JSON object`, { cause: error });
      }
    });

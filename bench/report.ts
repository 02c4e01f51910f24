/** What a run gave: a table for people, the same as JSON, and a chart. */
import type { Machine } from './machine.ts';
import { median, spread } from './statistics.ts';
import type { FigureDescription, Measured, Workload } from './workload.ts';

export interface SystemRounds {
  readonly system: string;
  readonly rounds: readonly Measured[];
}

export interface WorkloadReport {
  readonly workload: Workload;
  readonly systems: readonly SystemRounds[];
}

interface FigureValue {
  readonly value: number;
  /** undefined: it is the worst one. */
  readonly spread?: number;
}

export interface FigureResult {
  readonly workload: string;
  readonly figure: string;
  readonly unit: string;
  readonly better: FigureDescription['better'];
  /** By system: the median of the rounds and their spread as a share of it, or the worst of them. */
  readonly values: Readonly<Record<string, FigureValue>>;
  /** Ours by etcd's. */
  readonly ratio?: number;
  /** Of what is no other store, by ours: servers on another Node, the bare parts. */
  readonly beside: readonly { readonly name: string; readonly ratio: number }[];
  readonly ratioGoal?: number;
  readonly limit?: number;
  readonly kept?: boolean;
}

const ours = 'futurestore';
const theirs = 'etcd';

/** `beside`: the columns that are no other store's. */
export const resultsOf = (
  { workload, systems }: WorkloadReport,
  beside: readonly string[] = [],
): FigureResult[] =>
  workload.figures.map((figure) => {
    const values: Record<string, FigureValue> = {};
    for (const { system, rounds } of systems) {
      const numbers = rounds.map((round) => round[figure.name]).filter((one) => one !== undefined);
      if (numbers.length > 0) values[system] = valueOf(figure, numbers);
    }
    const own = values[ours]?.value;
    const other = values[theirs]?.value;
    const ratio = own === undefined || other === undefined || other === 0 ? undefined : own / other;
    const kept = verdict(figure, own, ratio);
    return {
      workload: workload.name,
      figure: figure.name,
      unit: figure.unit,
      better: figure.better,
      values,
      ...(ratio !== undefined && { ratio }),
      beside: ratiosBeside(values, beside),
      ...(figure.ratioGoal !== undefined && { ratioGoal: figure.ratioGoal }),
      ...(figure.limit !== undefined && { limit: figure.limit }),
      ...(kept !== undefined && { kept }),
    };
  });

const valueOf = ({ better, everyRound }: FigureDescription, rounds: readonly number[]): FigureValue =>
  everyRound === true
    ? { value: better === 'more' ? Math.min(...rounds) : Math.max(...rounds) }
    : { value: median(rounds), spread: spread(rounds) };

const ratiosBeside = (values: FigureResult['values'], names: readonly string[]): FigureResult['beside'] => {
  const own = values[ours]?.value ?? 0;
  return names.flatMap((name) => {
    const other = values[name]?.value;
    return own === 0 || other === undefined ? [] : [{ name, ratio: other / own }];
  });
};

/** undefined: nothing was promised, or nothing can be said. */
const verdict = (
  { better, ratioGoal, limit }: FigureDescription,
  own: number | undefined,
  ratio: number | undefined,
): boolean | undefined => {
  const good = (value: number, goal: number): boolean => (better === 'more' ? value >= goal : value <= goal);
  const verdicts: boolean[] = [];
  if (ratioGoal !== undefined && ratio !== undefined) verdicts.push(good(ratio, ratioGoal));
  if (limit !== undefined && own !== undefined) verdicts.push(good(own, limit));
  return verdicts.length === 0 ? undefined : verdicts.every(Boolean);
};

const shown = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);

const valueText = ({ value, spread: between }: FigureValue): string =>
  between === undefined ? `${shown(value)} at worst` : `${shown(value)} ±${(between * 50).toFixed(0)}%`;

export const tableLines = (results: readonly FigureResult[], systems: readonly string[]): string[] =>
  results.map(({ figure, unit, values, ratio, ratioGoal, limit, better, kept, beside }) => {
    const columns = systems.map((system) => {
      const value = values[system];
      return (value === undefined ? '–' : valueText(value)).padStart(16);
    });
    const sign = better === 'more' ? '≥' : '≤';
    const notes = [
      ...beside.map((one) => `${one.name} × ${shown(one.ratio)}`),
      ratio === undefined ? '' : `× ${shown(ratio)}`,
      ratioGoal === undefined ? '' : `goal ${sign} ${ratioGoal} ×`,
      limit === undefined ? '' : `limit ${sign} ${limit} ${unit}`.trimEnd(),
      kept === undefined ? '' : kept ? 'kept' : 'MISSED',
    ].filter((note) => note !== '');
    return `  ${figure.padEnd(30)} ${unit.padEnd(8)}${columns.join('')}   ${notes.join(', ')}`;
  });

export const jsonOf = (
  machine: Machine,
  versions: Readonly<Record<string, string>>,
  results: readonly FigureResult[],
): string =>
  `${JSON.stringify({ at: new Date().toISOString(), machine, versions, results }, undefined, 2)}\n`;

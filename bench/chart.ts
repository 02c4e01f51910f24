/** The ratios to etcd as bars, in SVG: to the right of the line we are the faster one. */
import type { FigureResult } from './report.ts';

const rowHeight = 26;
const labelWidth = 330;
const scaleWidth = 420;
const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };
const escaped = (text: string): string => text.replaceAll(/[&<>]/g, (found) => escapes[found] ?? found);

/** How many times better ours is: above 1 always means better. */
const advantage = ({ ratio, better }: FigureResult): number =>
  ratio === undefined ? Number.NaN : better === 'more' ? ratio : 1 / ratio;

export const chartOf = (results: readonly FigureResult[]): string => {
  const rows = results.filter((result) => result.ratio !== undefined && result.ratioGoal !== undefined);
  const most = Math.max(2, ...rows.map((row) => Math.max(advantage(row), goalOf(row))));
  const reach = Math.ceil(Math.log2(most));
  // By powers of two, from 1/2^reach to 2^reach.
  const x = (value: number): number =>
    labelWidth + scaleWidth * ((Math.max(-reach, Math.log2(value)) + reach) / (2 * reach));
  const height = 60 + rows.length * rowHeight;
  const width = labelWidth + scaleWidth + 90;
  const bars = rows.map((row, index) => {
    const y = 40 + index * rowHeight;
    const value = advantage(row);
    const from = Math.min(x(1), x(value));
    const long = Math.abs(x(value) - x(1));
    const goal = x(goalOf(row));
    const fill = row.kept === false ? '#c2703d' : '#3d7ac2';
    return [
      `<text x="${labelWidth - 10}" y="${y + 15}" text-anchor="end">${escaped(`${row.workload}: ${row.figure}`)}</text>`,
      `<rect x="${from.toFixed(1)}" y="${y + 3}" width="${long.toFixed(1)}" height="16" fill="${fill}"/>`,
      `<line x1="${goal.toFixed(1)}" y1="${y}" x2="${goal.toFixed(1)}" y2="${y + 22}" stroke="#222" stroke-dasharray="3 2"/>`,
      `<text x="${(Math.max(x(1), x(value)) + 6).toFixed(1)}" y="${y + 15}">${value.toFixed(2)}</text>`,
    ].join('\n');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="13">`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    '<text x="10" y="22">Times better than etcd in the same run (dashed: the goal)</text>',
    ...bars,
    `<line x1="${x(1)}" y1="34" x2="${x(1)}" y2="${height - 14}" stroke="#222"/>`,
    '</svg>',
    '',
  ].join('\n');
};

const goalOf = ({ ratioGoal = 1, better }: FigureResult): number =>
  better === 'more' ? ratioGoal : 1 / ratioGoal;

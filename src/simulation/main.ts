import { drawPlan, run } from './index.ts';
const first = Number(process.argv[2] ?? 1), count = Number(process.argv[3] ?? 1);
let sim = 0, real = 0, ev = 0;
for (let seed = first; seed < first + count; seed += 1) {
  const lines: string[] = [];
  const result = await run(drawPlan(seed), process.argv[4] ? { sink: (line) => void lines.push(line) } : {});
  sim += result.simulatedMs; real += result.statistics.realMs; ev += result.statistics.events;
  if (!result.ok) { console.log('seed', seed, result.failure); if (count === 1) console.log(result.trace.slice(-60).join('\n')); }
  if (count === 1) { console.log(JSON.stringify(result.statistics, null, 1)); }
  if (process.argv[4]) (await import('node:fs')).writeFileSync(process.argv[4], lines.join('\n'));
}
console.log({ sim, real, ev, factor: sim / real, usPerEvent: real * 1000 / ev });

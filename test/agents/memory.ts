/** What processes take, as the kernel counts it. */
import { readFileSync } from 'node:fs';

/** Resident memory of a process, in KiB. */
export const residentKiB = (pid: number): number => {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  if (line === null) throw new Error(`the kernel does not tell what process ${pid} takes`);
  return Number(line[1]);
};

/** Seconds of processor time of a process since it began, of all its threads. */
export const processorSeconds = (pid: number): number => {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // Behind the command's name, which may hold blanks; the kernel's ticks are hundredths.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

/** What the kernel says of how long processes ran, and how long they were ready to run and had no processor. */
import { readFileSync } from 'node:fs';

/**
 * How long the main thread of the process has waited for a processor since it began, in milliseconds; 0 where the
 * kernel does not tell. A limit in milliseconds is about our work: what neighbours on the machine take is not ours.
 * (/proc/PID/schedstat: nanoseconds run, nanoseconds ready and waiting, time slices.)
 */
export const waitedForProcessorMs = (pid: number): number => {
  try {
    const [, waited = '0'] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').trim().split(' ');
    return Number(waited) / 1e6;
  } catch {
    return 0;
  }
};

/** How long the main thread of the process has run on a processor since it began, in milliseconds; 0: not to be had. */
export const ranOnProcessorMs = (pid: number): number => {
  try {
    const [ran = '0'] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ');
    return Number(ran) / 1e6;
  } catch {
    return 0;
  }
};

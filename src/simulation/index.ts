/**
 * The simulator: whole clusters and their agents in one process, under virtual time, from a seed.
 *
 * It runs the code that ships: raft, store, storage, server, gateway and client. Only clocks, chance, disks and
 * networks are its own. It owns the drawing of runs (plan.ts, scenario.ts), what goes wrong in them (faults.ts), and
 * what judges them (checks/). May call every room that it runs; nobody may call it but its command and tests.
 * Promises: the same seed is the same run, to the byte of its trace, whatever else runs on the machine.
 */
export { run, type RunOptions, type RunResult } from './run.ts';
export { drawPlan } from './scenario.ts';
export { shrink, type Runner, type Shrunk } from './shrink.ts';
export type { Fault, Plan } from './plan.ts';

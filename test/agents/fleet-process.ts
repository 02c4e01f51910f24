/** A fleet in a process of its own. Run from sources (by tests) it stays in this one: Node can't run those by itself. */
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { ProcessObject, serveObject } from '../support/process-object.ts';
import type { ArgumentsOf, MethodOf, ResultOf } from '../support/process-object.ts';
import { Fleet } from './fleet.ts';
import type { FleetOptions } from './fleet.ts';

export interface FleetHandle {
  readonly processId: number;
  call<Name extends MethodOf<Fleet>>(
    method: Name,
    ...args: ArgumentsOf<Fleet, Name>
  ): Promise<ResultOf<Fleet, Name>>;
  close(): Promise<void>;
}

const childFlag = '--agents-fleet';

export const openFleet = (options: FleetOptions): FleetHandle => {
  const file = fileURLToPath(import.meta.url);
  if (file.endsWith('.js')) return new ProcessObject('a process of agents', file, [childFlag], options);
  const fleet = new Fleet(options);
  return {
    processId: process.pid,
    call: async (method, ...args) => {
      const called = fleet[method] as (...given: typeof args) => Promise<unknown>;
      return (await called.apply(fleet, args)) as ResultOf<Fleet, typeof method>;
    },
    close: () => fleet.stop(),
  };
};

if (process.argv[2] === childFlag && process.send !== undefined)
  serveObject((options: FleetOptions) => new Fleet(options));

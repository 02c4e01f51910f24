/** The modules of a build that are measured by themselves; of this build, or of another one in its own folder. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type * as protocol from '../../src/protocol/index.ts';
import type * as raft from '../../src/raft/index.ts';
import type * as scopes from '../../src/scopes/index.ts';
import type * as store from '../../src/store/index.ts';
import type * as timerWheel from '../../src/store/timer-wheel.ts';

export interface Modules {
  readonly protocol: typeof protocol;
  readonly raft: typeof raft;
  readonly scopes: typeof scopes;
  readonly store: typeof store;
  readonly timerWheel: typeof timerWheel;
}

/** `directory`: the build's `dist`. */
export const modulesOf = async (directory: string): Promise<Modules> => {
  const load = async (...path: string[]): Promise<unknown> =>
    await import(pathToFileURL(join(directory, ...path)).href);
  return {
    protocol: (await load('protocol', 'index.js')) as Modules['protocol'],
    raft: (await load('raft', 'index.js')) as Modules['raft'],
    scopes: (await load('scopes', 'index.js')) as Modules['scopes'],
    store: (await load('store', 'index.js')) as Modules['store'],
    timerWheel: (await load('store', 'timer-wheel.js')) as Modules['timerWheel'],
  };
};

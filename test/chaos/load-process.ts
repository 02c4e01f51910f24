/**
 * The load in a process of its own, so that its clients don't share a loop with whoever brings about the faults. Run
 * from sources (by tests) it stays in this one: Node can't run those by itself.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Load } from './load.ts';
import type { LoadOptions, LoadProgress, LoadReport } from './load.ts';

export interface LoadHandle {
  progress(): LoadProgress;
  stop(): Promise<LoadReport>;
}

type ToLoad = { readonly kind: 'start'; readonly options: LoadOptions } | { readonly kind: 'stop' };
type FromLoad =
  | { readonly kind: 'progress'; readonly progress: LoadProgress }
  | { readonly kind: 'report'; readonly report: LoadReport };

const progressIntervalMs = 20;
const childFlag = '--chaos-load';

class LoadProcess implements LoadHandle {
  readonly #child = fork(fileURLToPath(import.meta.url), [childFlag], { serialization: 'advanced' });
  readonly #report: Promise<LoadReport>;
  readonly started: Promise<void>;
  #progress: LoadProgress | undefined;

  constructor(options: LoadOptions) {
    let started: () => void = () => undefined;
    this.started = new Promise((resolve) => (started = resolve));
    this.#report = new Promise((resolve, reject) => {
      this.#child.on('message', (message: FromLoad) => {
        if (message.kind === 'report') resolve(message.report);
        else this.#progress = message.progress;
        started();
      });
      this.#child.once('exit', (code) => {
        reject(new Error(`the load's process ended with code ${code}`));
        started();
      });
    });
    this.#report.catch(() => undefined);
    this.#send({ kind: 'start', options });
  }

  progress(): LoadProgress {
    if (this.#progress === undefined) throw new Error('the load has not started');
    return this.#progress;
  }

  async stop(): Promise<LoadReport> {
    this.#send({ kind: 'stop' });
    const report = await this.#report;
    this.#child.disconnect();
    await once(this.#child, 'exit');
    return report;
  }

  #send(message: ToLoad): void {
    this.#child.send(message);
  }
}

export const startLoad = async (options: LoadOptions): Promise<LoadHandle> => {
  if (!import.meta.url.endsWith('.js')) {
    const load = new Load(options);
    return { progress: () => load.progress, stop: () => load.stop() };
  }
  const load = new LoadProcess(options);
  await load.started;
  return load;
};

const serveParent = (): void => {
  const send = (message: FromLoad): void => {
    process.send?.(message);
  };
  let load: Load | undefined;
  let ticking: NodeJS.Timeout | undefined;
  process.on('message', (message: ToLoad) => {
    if (message.kind === 'start') {
      const started = new Load(message.options);
      load = started;
      ticking = setInterval(
        () => send({ kind: 'progress', progress: started.progress }),
        progressIntervalMs,
      ).unref();
      return;
    }
    clearInterval(ticking);
    void load?.stop().then((report) => send({ kind: 'report', report }));
  });
  process.once('disconnect', () => process.exit(0));
};

if (process.argv[2] === childFlag && process.send !== undefined) serveParent();

/** A fleet in a process of its own. Run from sources (by tests) it stays in this one: Node can't run those by itself. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Fleet } from './fleet.ts';
import type { FleetOptions } from './fleet.ts';

type Method = Exclude<keyof Fleet, symbol>;
type Arguments<Name extends Method> = Parameters<Fleet[Name]>;
type Result<Name extends Method> = Awaited<ReturnType<Fleet[Name]>>;

export interface FleetHandle {
  readonly processId: number;
  call<Name extends Method>(method: Name, ...args: Arguments<Name>): Promise<Result<Name>>;
  close(): Promise<void>;
}

interface Call {
  readonly number: number;
  readonly method: Method;
  readonly args: readonly unknown[];
}
type FromFleet =
  { readonly number: number; readonly result: unknown } | { readonly number: number; readonly error: string };

const childFlag = '--agents-fleet';

interface Caller {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

class FleetProcess implements FleetHandle {
  readonly #child: ChildProcess;
  readonly #callers = new Map<number, Caller>();
  #last = 0;
  #failed: Error | undefined;

  constructor(options: FleetOptions) {
    this.#child = fork(fileURLToPath(import.meta.url), [childFlag], {
      serialization: 'advanced',
      execArgv: ['--max-old-space-size=8192'],
    });
    this.#child.send({ options });
    this.#child.on('message', (message: FromFleet) => {
      const caller = this.#callers.get(message.number);
      this.#callers.delete(message.number);
      if ('error' in message) caller?.reject(new Error(message.error));
      else caller?.resolve(message.result);
    });
    this.#child.once('exit', (code, signal) => {
      this.#failed = new Error(`a process of agents ended with ${signal ?? `code ${code}`}`);
      for (const caller of this.#callers.values()) caller.reject(this.#failed);
    });
  }

  get processId(): number {
    return this.#child.pid ?? 0;
  }

  async call<Name extends Method>(method: Name, ...args: Arguments<Name>): Promise<Result<Name>> {
    if (this.#failed !== undefined) throw this.#failed;
    this.#last += 1;
    const call: Call = { number: this.#last, method, args };
    const result = new Promise<unknown>((resolve, reject) => {
      this.#callers.set(call.number, { resolve, reject });
    });
    this.#child.send(call);
    return (await result) as Result<Name>;
  }

  async close(): Promise<void> {
    if (this.#failed !== undefined) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

const invoke = async (fleet: Fleet, method: Method, args: readonly unknown[]): Promise<unknown> => {
  const called = fleet[method] as (...given: readonly unknown[]) => Promise<unknown>;
  return await called.apply(fleet, [...args]);
};

export const openFleet = (options: FleetOptions): FleetHandle => {
  if (import.meta.url.endsWith('.js')) return new FleetProcess(options);
  const fleet = new Fleet(options);
  return {
    processId: process.pid,
    call: async <Name extends Method>(method: Name, ...args: Arguments<Name>): Promise<Result<Name>> => {
      const result: unknown = await invoke(fleet, method, args);
      return result as Result<Name>;
    },
    close: () => fleet.stop(),
  };
};

const serveParent = (): void => {
  const send = (message: FromFleet): void => {
    process.send?.(message);
  };
  let fleet: Fleet | undefined;
  process.on('message', (message: Call | { readonly options: FleetOptions }) => {
    if ('options' in message) {
      fleet = new Fleet(message.options);
      return;
    }
    const { number, method, args } = message;
    if (fleet === undefined) throw new Error('a call came before the options');
    invoke(fleet, method, args).then(
      (result) => send({ number, result }),
      (error: unknown) =>
        send({ number, error: error instanceof Error ? (error.stack ?? '') : String(error) }),
    );
  });
  process.once('disconnect', () => process.exit(0));
};

if (process.argv[2] === childFlag && process.send !== undefined) serveParent();

/** An object in a process of its own: its methods take and give plain data. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';

/** The names of an object's methods that can be called from another process. */
export type MethodOf<T> = Exclude<
  { [Name in keyof T]: T[Name] extends (...args: never[]) => Promise<unknown> ? Name : never }[keyof T],
  symbol
>;
export type ArgumentsOf<T, Name extends keyof T> = T[Name] extends (...args: infer Arguments) => unknown
  ? Arguments
  : never;
export type ResultOf<T, Name extends keyof T> = T[Name] extends (...args: never[]) => Promise<infer Result>
  ? Result
  : never;

interface Call {
  readonly number: number;
  readonly method: PropertyKey;
  readonly args: readonly unknown[];
}
type Answer =
  { readonly number: number; readonly result: unknown } | { readonly number: number; readonly error: string };

interface Caller {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** The other end of `serveObject`. */
export class ProcessObject<T, Options> {
  readonly #what: string;
  readonly #child: ChildProcess;
  readonly #callers = new Map<number, Caller>();
  #last = 0;
  #failed: Error | undefined;

  /** `what`: for errors. `file`: a built module that calls `serveObject` when it is started with `args`. */
  constructor(what: string, file: string, args: readonly string[], options: Options) {
    this.#what = what;
    this.#child = fork(file, args, {
      serialization: 'advanced',
      execArgv: ['--max-old-space-size=8192'],
    });
    this.#child.send({ options });
    this.#child.on('message', (message: Answer) => {
      const caller = this.#callers.get(message.number);
      this.#callers.delete(message.number);
      if ('error' in message) caller?.reject(new Error(message.error));
      else caller?.resolve(message.result);
    });
    this.#child.once('exit', (code, signal) => {
      this.#failed = new Error(`${this.#what} ended with ${signal ?? `code ${code}`}`);
      for (const caller of this.#callers.values()) caller.reject(this.#failed);
    });
  }

  get processId(): number {
    return this.#child.pid ?? 0;
  }

  async call<Name extends MethodOf<T>>(
    method: Name,
    ...args: ArgumentsOf<T, Name>
  ): Promise<ResultOf<T, Name>> {
    if (this.#failed !== undefined) throw this.#failed;
    this.#last += 1;
    const call: Call = { number: this.#last, method, args };
    const result = new Promise<unknown>((resolve, reject) => {
      this.#callers.set(call.number, { resolve, reject });
    });
    this.#child.send(call);
    return (await result) as ResultOf<T, Name>;
  }

  async close(): Promise<void> {
    if (this.#failed !== undefined) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

/** Makes the object of the options that come first, then answers calls; ends with the parent. */
export const serveObject = (make: (options: never) => object): void => {
  const send = (message: Answer): void => {
    process.send?.(message);
  };
  let object: object | undefined;
  const invoke = async ({ method, args }: Call): Promise<unknown> => {
    if (object === undefined) throw new Error('a call came before the options');
    const called = Reflect.get(object, method) as (...given: readonly unknown[]) => Promise<unknown>;
    return await called.apply(object, [...args]);
  };
  process.on('message', (message: Call | { readonly options: never }) => {
    if ('options' in message) {
      object = make(message.options);
      return;
    }
    const { number } = message;
    invoke(message).then(
      (result) => send({ number, result }),
      (error: unknown) =>
        send({ number, error: error instanceof Error ? (error.stack ?? '') : String(error) }),
    );
  });
  process.once('disconnect', () => process.exit(0));
};

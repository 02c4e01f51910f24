/** A client written in Python, which knows of the protocol what proto/ says: commands in, events out, as lines of JSON. */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { resolve as resolvePath } from 'node:path';
import { createInterface } from 'node:readline';
import { eventually } from './process-cluster.ts';

const works = (executable: string): boolean =>
  spawnSync(executable, ['-c', 'import websockets, google.protobuf']).status === 0;

/** One with the two packages; undefined: there is none on this machine, or nothing that makes code of agent.proto. */
export const python =
  spawnSync('protoc', ['--version']).status === 0 ? ['python3', '/usr/bin/python3'].find(works) : undefined;

export interface PythonEvent {
  readonly connected?: number;
  readonly principal?: string;
  readonly awaited?: string;
  readonly state?: string;
  readonly value?: string;
  readonly resolved?: string;
  readonly generation?: number;
  readonly changed?: string;
  readonly revision?: number;
  readonly caught_up?: string;
  readonly reset?: string;
  readonly failed?: string;
  readonly message?: string;
  readonly ended?: string;
}

export interface PythonClientOptions {
  readonly executable: string;
  /** For the code that is made of agent.proto. */
  readonly directory: string;
  /** Files. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly endpoints: readonly string[];
}

export class PythonClient {
  readonly #process: ChildProcess;
  readonly #events: PythonEvent[] = [];
  #standardError = '';

  constructor({ executable, directory, ca, cert, key, endpoints }: PythonClientOptions) {
    const made = spawnSync('protoc', [`--python_out=${directory}`, '-I', 'proto', 'agent.proto'], {
      encoding: 'utf8',
    });
    if (made.status !== 0) throw new Error(`protoc failed: ${made.stderr}`);
    const program = resolvePath('test', 'processes', 'python', 'client.py');
    this.#process = spawn(executable, ['-B', program, ca, cert, key, ...endpoints], {
      env: { ...process.env, PYTHONPATH: directory },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = this.#process;
    if (stdout === null || stderr === null) throw new Error('the client was started without its pipes');
    createInterface(stdout).on('line', (line) => this.#events.push(JSON.parse(line) as PythonEvent));
    stderr.on('data', (text: Buffer) => (this.#standardError += text.toString()));
  }

  get events(): readonly PythonEvent[] {
    return this.#events;
  }

  tell(command: Readonly<Record<string, string | number | boolean>>): void {
    this.#process.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  /** The first event behind `from` of which this holds. */
  async event(what: string, holds: (event: PythonEvent) => boolean, from = 0): Promise<PythonEvent> {
    let found: PythonEvent | undefined;
    await eventually(`the client in Python tells that ${what}`, () => {
      found = this.#events.slice(from).find(holds);
      if (found === undefined && this.#process.exitCode !== null)
        throw new Error(`the client in Python ended: ${this.#standardError} ${JSON.stringify(this.#events)}`);
      return Promise.resolve(found !== undefined);
    });
    return found as PythonEvent;
  }

  close(): Promise<void> {
    if (this.#process.exitCode !== null) return Promise.resolve();
    return new Promise((resolve) => {
      this.#process.once('exit', () => resolve());
      this.#process.kill('SIGKILL');
    });
  }
}

/** Where a mutated copy of the code is built and tried, apart from the real build. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Mutation } from './mutation.ts';
import { runTrial, type Seeds } from './trial-process.ts';

/** A mutation that makes a run go on for ever counts as found; a sound run takes about a second, rarely ten. */
const seedMsMax = 60_000;

export interface Trial extends Seeds {
  /** Seeds that fail without the mutation too, and say nothing about it. */
  readonly unsound: readonly number[];
}

/** One directory, used for one mutation after the other. */
export class Workshop {
  readonly #directory: string;
  readonly #built: string;
  readonly #root: string;

  /** `root`: the repository, with dependencies, generated code, and what was built of it. */
  constructor(root: string) {
    this.#root = root;
    this.#directory = mkdtempSync(join(tmpdir(), 'futurestore-mutate-'));
    this.#built = join(this.#directory, 'dist');
    for (const name of ['package.json', 'tsconfig.json'])
      cpSync(join(root, name), join(this.#directory, name));
    cpSync(join(root, 'src'), join(this.#directory, 'src'), { recursive: true });
    const modules = dirname(
      dirname(createRequire(join(root, 'package.json')).resolve('typescript/package.json')),
    );
    symlinkSync(modules, join(this.#directory, 'node_modules'));
    mkdirSync(join(this.#built, 'protocol', 'generated'), { recursive: true });
    const generated = join('protocol', 'generated', 'messages.js');
    cpSync(join(root, 'src', generated), join(this.#built, generated));
  }

  /** Builds the code with the mutation and runs seeds until one fails that does not fail without it. */
  async try(mutation: Mutation, firstSeed: number, seeds: number): Promise<Trial> {
    const restore = this.#mutate(mutation);
    try {
      await this.#build();
    } finally {
      restore();
    }
    const unsound: number[] = [];
    let done = 0;
    while (done < seeds) {
      const trial = await this.#run(this.#built, firstSeed + done, seeds - done);
      done += trial.seeds;
      if (trial.failure === undefined) break;
      const { seed } = trial.failure;
      const sound = await this.#run(join(this.#root, 'dist'), seed, 1);
      if (sound.failure === undefined) return { seeds: done, failure: trial.failure, unsound };
      unsound.push(seed);
    }
    return { seeds: done, failure: undefined, unsound };
  }

  close(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Gives what puts the file back as it was. */
  #mutate({ name, file, find, replace }: Mutation): () => void {
    const path = join(this.#directory, 'src', file);
    const text = readFileSync(path, 'utf8');
    const at = text.indexOf(find);
    if (at === -1) throw new Error(`${name}: "${find}" is not in ${file} any more`);
    writeFileSync(path, text.slice(0, at) + replace + text.slice(at + find.length));
    return () => writeFileSync(path, text);
  }

  #build(): Promise<void> {
    const compiler = join(this.#directory, 'node_modules', 'typescript', 'bin', 'tsc');
    // What a mutation does to the types is of no interest.
    const flags = ['-p', join(this.#directory, 'src', 'tsconfig.json'), '--noCheck'];
    return new Promise((resolve, reject) => {
      execFile(process.execPath, [compiler, ...flags], { cwd: this.#directory }, (error, stdout) => {
        if (error === null) resolve();
        else reject(new Error(`the mutated code cannot be built: ${stdout}`, { cause: error }));
      });
    });
  }

  #run(built: string, first: number, seeds: number): Promise<Seeds> {
    const script = join(built, 'simulation', 'mutations', 'trial.js');
    return runTrial({ script, directory: this.#directory, first, seeds, seedMsMax });
  }
}

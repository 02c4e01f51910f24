/** Another commit's build, beside this one's. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

export interface OtherBuild {
  readonly commit: string;
  /** As in process-cluster.ts. */
  readonly command: string;
  close(): void;
}

const reasonOf = (error: unknown): string => {
  const { stderr, message } = error as Error & { readonly stderr?: string };
  const text = stderr === undefined || stderr.trim() === '' ? message : stderr;
  return text.trim().split('\n').at(-1) ?? '';
};

/** The reason in words where there is no such commit here: a shallow clone, or no history at all. */
export const buildOf = async (revision: string): Promise<OtherBuild | string> => {
  let commit: string;
  try {
    const { stdout } = await execute('git', ['rev-parse', '--verify', '--short', `${revision}^{commit}`]);
    commit = stdout.trim();
  } catch (error) {
    return `git has no ${revision} here: ${reasonOf(error)}`;
  }
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-build-'));
  try {
    const archive = join(directory, 'archive.tar');
    await execute('git', ['archive', '--output', archive, commit]);
    await execute('tar', ['-xf', archive, '-C', directory]);
    rmSync(archive);
    symlinkSync(realpathSync('node_modules'), join(directory, 'node_modules'));
    await execute('npm', ['run', '--silent', 'build'], { cwd: directory, env: process.env });
    const command = join(directory, 'dist', 'cli', 'futurestore.js');
    if (!existsSync(command)) throw new Error(`the build of ${commit} made no ${command}`);
    return { commit, command, close: () => rmSync(directory, { recursive: true, force: true }) };
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw new Error(`${commit} cannot be built: ${reasonOf(error)}`, { cause: error });
  }
};

/** Files that may be replaced while the process runs: whether they have been is seen by their state, not by events. */
import { readFileSync, statSync } from 'node:fs';

/** What is asked of the file system, so that tests need none. */
export interface FileReader {
  /** Changes whenever the file is replaced or written; undefined: there is none that could be looked at. */
  version(path: string): string | undefined;
  /** Throws where it cannot be read. */
  read(path: string): string;
}

/** Events of the file system get lost (renames, network mounts); a look at the state does not. */
export const fileReader: FileReader = {
  version: (path) => {
    try {
      const { ino, size, mtimeMs, ctimeMs } = statSync(path);
      return `${ino}:${size}:${mtimeMs}:${ctimeMs}`;
    } catch {
      return undefined;
    }
  },
  read: (path) => readFileSync(path, 'utf8'),
};

/** How often such files are looked at. */
export const lookEveryMs = 5_000;

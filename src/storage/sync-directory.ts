import { open } from 'node:fs/promises';

/** Names that were made, renamed or removed in it are so on disk. */
export const syncDirectory = async (path: string): Promise<void> => {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
};

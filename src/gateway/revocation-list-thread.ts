/** A thread that reads one file of revocation lists and ends: see revocation-list-reader.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { parseRevocationLists } from './revocation-lists.ts';
import type { ListReading } from './revocation-lists.ts';
import type { ListsRead } from './revocation-list-reader.ts';

const tell = (read: ListsRead): void => parentPort?.postMessage(read, []);

parseRevocationLists(workerData as ListReading).then(
  (lists) => tell({ lists }),
  (error: unknown) => tell({ problem: error instanceof Error ? error.message : String(error) }),
);

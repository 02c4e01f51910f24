/**
 * Where revocation lists are read. A long one takes seconds in one go, in which a server would neither answer nor lead:
 * so it is read by a thread of its own.
 */
import { Worker } from 'node:worker_threads';
import { parseRevocationLists } from './revocation-lists.ts';
import type { ListReading, RevocationList } from './revocation-lists.ts';

/** Rejects with an Error that says what is wrong with the lists. */
export type ReadRevocationLists = (reading: ListReading) => Promise<ReadonlyMap<string, RevocationList>>;

/** What the thread says. */
export type ListsRead =
  { readonly lists: ReadonlyMap<string, RevocationList> } | { readonly problem: string };

/** Some hundred certificates: a thread takes longer to begin than these take to read. */
const charactersHereMax = 8 * 1024;

/** The thread's program, as it is built: there is none beside this file where it runs from its source. */
export const revocationListThread = new URL('./revocation-list-thread.js', import.meta.url);

/** `thread` undefined: all are read where they are asked for. */
export const revocationListReader = (thread: URL | undefined): ReadRevocationLists => {
  if (thread === undefined) return parseRevocationLists;
  return (reading) =>
    reading.text.length <= charactersHereMax ? parseRevocationLists(reading) : readBy(thread, reading);
};

const readBy = (thread: URL, reading: ListReading): Promise<ReadonlyMap<string, RevocationList>> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(thread, { workerData: reading });
    // A server that ends does not wait for it.
    worker.unref();
    worker.once('message', (read: ListsRead) => {
      if ('lists' in read) resolve(read.lists);
      else reject(new Error(read.problem));
    });
    worker.once('error', (cause) => {
      reject(new Error(`${reading.source} cannot be read: ${cause.message}`, { cause }));
    });
    // Without effect where it has said something.
    worker.once('exit', (code) => {
      reject(new Error(`${reading.source} cannot be read: the thread that read it ended with ${code}`));
    });
  });

/** How a server's process uses memory. */
import { setFlagsFromString } from 'node:v8';

/**
 * Environment variables with which a server's process should be started, because only glibc reads them, and only at the
 * start. Node's TLS keeps two buffers for each connection, of 64 and 16 KiB, of which a waiting agent uses little; malloc
 * carves them out of pages that handshakes have used before, so that all of them are resident. With these, what is larger
 * than 20 KiB gets pages of its own that nobody has touched, and the rest fresh ones: some 10 KiB less for each
 * agent. Not below the 17 KiB that OpenSSL takes for each read: mapping them every time costs half as much as the read.
 * One mapping for each connection is far below the 65,530 that Linux allows a process.
 */
export const serverMemory: Readonly<Record<string, string>> = {
  MALLOC_MMAP_THRESHOLD_: '20480',
  MALLOC_TOP_PAD_: '0',
};

/**
 * V8 marks all that is alive when its heap has grown by about half since the last time: with many futures that is a sixth
 * of what a server's threads do for writes. Here the heap may double; with LevelDB's larger write buffer that makes of 120 µs
 * of the servers' processor for a settle 106 (100 connections with 10 outstanding each, five rounds in turn; 101 if it may
 * become three times as large). To be called before there is much.
 */
export const letHeapGrow = (): void => {
  setFlagsFromString('--heap-growing-percent=100');
};

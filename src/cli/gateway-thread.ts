/** What a gateway thread of a server runs. */
import { parentPort, workerData } from 'node:worker_threads';
import { runGatewayThread } from '../gateway/index.ts';
import type { GatewayThreadData } from '../gateway/index.ts';
import { createLogger } from './logger.ts';
import type { LogOptions } from './logger.ts';

export interface ThreadStart {
  readonly gateway: GatewayThreadData;
  readonly log: LogOptions;
}

if (parentPort === null) throw new Error('this is run in a thread of a server, not by itself');
const { gateway, log } = workerData as ThreadStart;
// Each thread numbers its connections by itself.
runGatewayThread(parentPort, gateway, createLogger(log).child({ thread: gateway.place }));

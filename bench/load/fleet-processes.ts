/** Fleets in processes of their own, so that nobody waits for what they do. */
import { fileURLToPath } from 'node:url';
import { ProcessObject } from '../../test/support/process-object.ts';
import type { EtcdFleet } from './etcd-fleet.ts';
import type { FleetOptions } from './fleet.ts';
import type { SubscriberFleet } from './subscriber-fleet.ts';

const what = 'a process of agents';
const beside = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

export const subscriberFleet = (options: FleetOptions): ProcessObject<SubscriberFleet, FleetOptions> =>
  new ProcessObject(what, beside('subscriber-fleet-worker.js'), [], options);

export const etcdFleet = (options: FleetOptions): ProcessObject<EtcdFleet, FleetOptions> =>
  new ProcessObject(what, beside('etcd-fleet-worker.js'), [], options);

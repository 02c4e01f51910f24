/** A process with agents of etcd, as it is told by its parent. */
import { serveObject } from '../../test/support/process-object.ts';
import { EtcdFleet } from './etcd-fleet.ts';
import type { FleetOptions } from './fleet.ts';

serveObject((options: FleetOptions) => new EtcdFleet(options));

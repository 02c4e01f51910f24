/** A process with agents of futurestore, as it is told by its parent. */
import { serveObject } from '../../test/support/process-object.ts';
import type { FleetOptions } from './fleet.ts';
import { SubscriberFleet } from './subscriber-fleet.ts';

serveObject((options: FleetOptions) => new SubscriberFleet(options));

/** What an agent is told first: where it is, who it is taken for, and what it may have at once. */
import { limits as protocolLimits } from '../protocol/index.ts';
import type { Welcome } from '../protocol/index.ts';
import type { ServerStanding } from '../server/index.ts';
import type { GatewaySetup } from './settings.ts';

interface ConnectionLimits {
  readonly requestsInFlightMax: number;
  readonly subscriptionsMax: number;
}

export const welcomeOf = (
  { limits, advertise }: GatewaySetup,
  { identity, revision }: ServerStanding,
  principal: string,
  { requestsInFlightMax, subscriptionsMax }: ConnectionLimits,
): Welcome => {
  const { clusterId, epoch, serverId, serverName, endpoints } = identity;
  return {
    clusterId,
    epoch,
    revision,
    serverId,
    serverName,
    principal,
    limits: {
      frameBytesMax: limits.frameBytesMax,
      valueBytesMax: protocolLimits.valueBytesMax,
      requestsInFlightMax,
      subscriptionsMax,
      operationsPerWriteMax: protocolLimits.operationsPerWriteMax,
    },
    endpoints: advertise.length > 0 ? advertise : endpoints,
  };
};

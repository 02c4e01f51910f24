/** The client that an endpoint's store needs. */
import { FuturestoreClient } from './futurestore-client.ts';
import type { KeyValueClient, KeyValueEndpoint } from './key-value-client.ts';
import { NatsClient } from './nats-client.ts';
import { ZookeeperClient } from './zookeeper-client.ts';

export const connectKeyValue = (endpoint: KeyValueEndpoint): Promise<KeyValueClient> => {
  switch (endpoint.store) {
    case 'futurestore':
      return FuturestoreClient.connect(endpoint);
    case 'nats':
      return NatsClient.connect(endpoint);
    case 'zookeeper':
      return ZookeeperClient.connect(endpoint);
    default:
      return endpoint.store satisfies never;
  }
};

/**
 * The agents' side of a server: wss with client certificates, hello, authorisation, requests and answers in frames,
 * subscriptions' back-pressure, heartbeats, drain.
 *
 * Owns every socket of an agent and what is in flight on it. Calls the server only through its port, in batches; asks
 * scopes what a principal may; knows the frames through protocol's codecs. Knows nothing of raft, store and disk, so
 * that it can live on another thread.
 *
 * Promises: nothing is parsed before TLS, identity and size limits; what reaches the server has been decoded, checked
 * and authorised; every request is answered exactly once or its connection ends; a connection that does not read
 * costs a bounded amount of memory and ends with the position to resume from; no connection harms another.
 */
export { createGateway, createGatewayBehind } from './gateway.ts';
export type { AgentGateway, LocalGateway } from './gateway.ts';
export type { AgentStream, AgentWebSocket, Arrival, CertificateAndKey, Door, OpenDoor } from './door.ts';
export type { Identity } from './identity.ts';
export { parsePolicyFile } from './policy-file.ts';
export { revocationListThread } from './revocation-list-reader.ts';
export { gatewayLimits } from './settings.ts';
export { fileReader, lookEveryMs } from './watched-files.ts';
export type { FileReader } from './watched-files.ts';
export { createGatewayThreads, defaultGatewayThreads } from './workers/gateway-threads.ts';
export type { GatewayThreadsOptions, ThreadMetrics } from './workers/gateway-threads.ts';
export { runGatewayThread } from './workers/thread.ts';
export type { GatewayThreadData } from './workers/thread.ts';
export type {
  GatewayClock,
  GatewayCoreOptions,
  GatewayLimits,
  GatewayMetrics,
  GatewayOptions,
} from './settings.ts';

/**
 * The relay: a daemon on an agent's machine that holds the machine's one connection to the servers, and serves local
 * programs with HTTP and JSON over a Unix socket.
 *
 * Owns its sockets, its directory (queued writes, their outcomes, cached values) and what it makes of time. May call
 * client (its connection) and protocol (errors, checks, limits). How a future looks as JSON is passed in.
 *
 * Promises:
 * - A write that was accepted is on disk before anybody is told, is sent in the order of acceptance, and happens once,
 *   over restarts and kills of this process. A queue that is full refuses; it never drops.
 * - A value whose freshness is not certain is given to nobody: not after a restart, not after a reboot, whatever happens
 *   to the wall clock.
 * - What is answered without asking a server is a followed key's latest state as the connected server told it, or, where
 *   no server can be reached, says that it comes from the cache.
 * - No sensitive value is on disk but in a queued write, none in a listing, a watch or a log.
 * - Every request, body, watch, queue and cache is bounded.
 */
export { startRelay } from './relay.ts';
export type { Relay, RelayOptions } from './relay.ts';
export type { MachineClock } from './clock.ts';
export { relayLimits } from './limits.ts';
export type { RelayLimits } from './limits.ts';
export type { RelayLogger } from './uplink.ts';

/**
 * HTTP for operators, and the metrics that it shows: /livez, /readyz, /metrics.
 *
 * Owns its port and the metrics' names. Knows only the protocol's close codes: what it shows is passed in as functions, and what is
 * measured comes in through methods that others know only as interfaces of their own. Promises to change nothing, and
 * never to name a key or a value.
 */
export { createMetrics } from './metrics.ts';
export type { Metrics } from './metrics.ts';
export { createAdminServer } from './server.ts';
export type { AdminServer } from './server.ts';

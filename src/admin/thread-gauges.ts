/** How the gateway threads' event loops are, by thread; there are none where agents are served in the main thread. */
import { Gauge } from 'prom-client';
import type { Registry } from 'prom-client';

export interface GatewayThreadState {
  /** Agents that have said hello. */
  readonly connections: number;
  /** How late its event loop was in the last second. */
  readonly delayP99Ms: number;
  readonly delayMaxMs: number;
  /** For how long it has not answered the main thread. */
  readonly silentSeconds: number;
}

/** The threads tell of each second; a scrape is given the worst since the one before. */
export class ThreadGauges {
  readonly #worst = new Map<number, { readonly p99Ms: number; readonly maxMs: number }>();
  readonly #silent: Gauge;
  readonly #connections: Gauge;

  constructor(registry: Registry) {
    this.#silent = new Gauge({
      name: 'futurestore_gateway_thread_silent_seconds',
      help: 'For how long a gateway thread has not answered the main thread',
      labelNames: ['thread'],
      registers: [registry],
    });
    this.#connections = new Gauge({
      name: 'futurestore_gateway_thread_connections',
      help: 'Agents connected to a gateway thread',
      labelNames: ['thread'],
      registers: [registry],
    });
    const delay: Gauge = new Gauge({
      name: 'futurestore_gateway_thread_event_loop_delay_seconds',
      help: "How late a gateway thread's event loop was since the last scrape",
      labelNames: ['thread', 'quantile'],
      registers: [registry],
      collect: () => {
        for (const [thread, { p99Ms, maxMs }] of this.#worst) {
          delay.set({ thread, quantile: '0.99' }, p99Ms / 1000);
          delay.set({ thread, quantile: '1' }, maxMs / 1000);
          this.#worst.set(thread, { p99Ms: 0, maxMs: 0 });
        }
      },
    });
  }

  heard(thread: number, state: GatewayThreadState): void {
    const { connections, delayP99Ms, delayMaxMs, silentSeconds } = state;
    const before = this.#worst.get(thread);
    this.#worst.set(thread, {
      p99Ms: Math.max(before?.p99Ms ?? 0, delayP99Ms),
      maxMs: Math.max(before?.maxMs ?? 0, delayMaxMs),
    });
    this.#silent.set({ thread }, silentSeconds);
    this.#connections.set({ thread }, connections);
  }
}

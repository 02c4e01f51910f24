/** The lines that say who was refused what. Never a value, and never so many that they are an attack of their own. */
import type { Failure } from '../protocol/index.ts';
import { LogBudget } from '../protocol/index.ts';
import type { GatewaySetup } from './settings.ts';

export interface AuditedRefusal {
  readonly failure: Failure;
  /** The verb asked for, or the kind of the request. */
  readonly verb: string;
  /** The key or pattern as asked for; undefined where there is none. */
  readonly key?: string;
  /** In words, with key and verb: where the refusal came from the log, and the request is no longer at hand. */
  readonly reason?: string;
}

/** Of one connection. */
export class Audit {
  readonly #setup: GatewaySetup;
  readonly #connection: number;
  /** As far as is known. */
  principal = 'nobody';
  readonly #budget: LogBudget;

  constructor(setup: GatewaySetup, connection: number) {
    this.#setup = setup;
    this.#connection = connection;
    this.#budget = new LogBudget(setup.limits.auditLinesPerSecondMax);
  }

  refused({ verb, key, reason, failure }: AuditedRefusal): void {
    if (!this.#budget.admits(this.#setup.clock.nowMs())) return;
    this.tellSuppressed();
    this.#setup.logger.warn(
      {
        audit: 'refused',
        connection: this.#connection,
        principal: this.principal,
        verb,
        key,
        reason,
        code: failure.code,
      },
      'a request was refused',
    );
  }

  /** Somebody asks for a change of the cluster; the server logs what comes of it. */
  asked(kind: string, what: { readonly member?: number } = {}): void {
    this.#setup.logger.info(
      { audit: 'asked', connection: this.#connection, principal: this.principal, request: kind, ...what },
      'a change of the cluster was asked for',
    );
  }

  /** To be called once more when the connection ends. */
  tellSuppressed(): void {
    const suppressed = this.#budget.takeSuppressed();
    if (suppressed === 0) return;
    this.#setup.logger.warn(
      { audit: 'refused', connection: this.#connection, principal: this.principal, suppressed },
      'more requests were refused than are logged one by one',
    );
  }
}

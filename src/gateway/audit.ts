/** The lines that say who was refused what. Never a value, and never so many that they are an attack of their own. */
import type { Failure } from '../protocol/index.ts';
import type { GatewaySetup } from './settings.ts';

export interface AuditedRefusal {
  readonly failure: Failure;
  /** The verb asked for, or the kind of the request. */
  readonly verb: string;
  /** The key or pattern as asked for; undefined where there is none. */
  readonly key?: string;
}

export class Audit {
  readonly #setup: GatewaySetup;
  readonly #connection: number;
  readonly #principal: string;
  #second = -1;
  #lines = 0;
  #suppressed = 0;

  constructor(setup: GatewaySetup, connection: number, principal: string) {
    this.#setup = setup;
    this.#connection = connection;
    this.#principal = principal;
  }

  refused(refusal: AuditedRefusal): void {
    const second = Math.floor(this.#setup.clock.nowMs() / 1000);
    if (second !== this.#second) {
      this.tellSuppressed();
      this.#second = second;
      this.#lines = 0;
    }
    if (this.#lines >= this.#setup.limits.auditLinesPerSecondMax) {
      this.#suppressed += 1;
      return;
    }
    this.#lines += 1;
    this.#setup.logger.warn(
      {
        audit: 'refused',
        connection: this.#connection,
        principal: this.#principal,
        verb: refusal.verb,
        key: refusal.key,
        code: refusal.failure.code,
      },
      'a request was refused',
    );
  }

  /** To be called once more when the connection ends. */
  tellSuppressed(): void {
    if (this.#suppressed === 0) return;
    this.#setup.logger.warn(
      {
        audit: 'refused',
        connection: this.#connection,
        principal: this.#principal,
        suppressed: this.#suppressed,
      },
      'more requests were refused than are logged one by one',
    );
    this.#suppressed = 0;
  }
}

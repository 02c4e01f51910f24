/**
 * The lines that say who was refused what, and who asked for what of the cluster. Never a value, and never so many that they
 * are an attack of their own. README.md lists them all.
 */
import type { AnswerBody, Failure } from '../protocol/index.ts';
import { LogBudget } from '../protocol/index.ts';
import {
  askedFields,
  auditedName,
  outcomeFields,
  outcomeUnknown,
  snapshotRequest,
} from './audited-changes.ts';
import type { AuditedRequest } from './audited-changes.ts';
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
  /** Names of what was asked for and has no answer yet, by request; most connections never ask for such. */
  #asked: Map<number, string> | undefined;

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

  /** Somebody asks for something of the cluster; `answered` tells what came of it. */
  asked(id: number, body: AuditedRequest): void {
    const request = auditedName(body);
    this.#asked ??= new Map();
    this.#asked.set(id, request);
    this.#setup.logger.info(
      { audit: 'asked', ...this.#who, request, ...askedFields(body) },
      'something of the cluster was asked for',
    );
  }

  /** Of any request: without effect where `asked` has not been told of it. */
  answered(id: number, body: AnswerBody): void {
    // The last part of a snapshot that was begun by another request.
    const isLastPart = body.kind === 'snapshot_part' && body.part.last;
    if (this.#asked === undefined && !isLastPart) return;
    const request = this.#asked?.get(id) ?? (isLastPart ? snapshotRequest : undefined);
    if (request === undefined) return;
    this.#asked?.delete(id);
    this.#tellOutcome(request, outcomeFields(body));
  }

  /** The connection has ended. */
  ended(): void {
    this.tellSuppressed();
    for (const request of this.#asked?.values() ?? []) this.#tellOutcome(request, outcomeUnknown);
    this.#asked = undefined;
  }

  #tellOutcome(request: string, outcome: Readonly<Record<string, unknown>>): void {
    this.#setup.logger.info(
      { audit: 'answered', ...this.#who, request, ...outcome },
      'what was asked of the cluster was answered',
    );
  }

  get #who(): { readonly connection: number; readonly principal: string } {
    return { connection: this.#connection, principal: this.principal };
  }

  tellSuppressed(): void {
    const suppressed = this.#budget.takeSuppressed();
    if (suppressed === 0) return;
    this.#setup.logger.warn(
      { audit: 'refused', connection: this.#connection, principal: this.principal, suppressed },
      'more requests were refused than are logged one by one',
    );
  }
}

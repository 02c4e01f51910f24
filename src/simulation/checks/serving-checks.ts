/** What one server answers its gateways, held against what the cluster had done when it was asked. */
import type { AnswerBody } from '../../protocol/index.ts';
import type { GatewayEvent, GatewayNotice, GatewayRequest } from '../../server/index.ts';
import type { AnswerChecks } from './answer-checks.ts';
import type { StateChecks } from './state-checks.ts';
import { violated } from './violation.ts';

interface Asked {
  readonly request: GatewayRequest;
  /** What had been applied somewhere. */
  readonly revision: number;
}

/** These say that the write was looked at, and what came of it; they are remembered. */
const decided = new Set(['ALREADY_SETTLED', 'PRECONDITION_FAILED', 'NOT_FOUND', 'NO_VALUE']);

const outcomeOf = (body: AnswerBody): string | undefined => {
  if (body.kind === 'failed') return decided.has(body.failure.code) ? body.failure.code : undefined;
  if (body.kind !== 'written') return undefined;
  const each = body.result.results.map(
    ({ generation, state, revision, unchanged }) => `${generation} ${state} @${revision} ${unchanged}`,
  );
  return `@${body.result.revision}: ${each.join(', ')}`;
};

/** One for each life of a server. */
export class ServingChecks {
  readonly #name: string;
  readonly #state: StateChecks;
  readonly #answers: AnswerChecks;
  readonly #open = new Map<number, Map<number, Asked>>();

  constructor(name: string, state: StateChecks, answers: AnswerChecks) {
    this.#name = name;
    this.#state = state;
    this.#answers = answers;
  }

  asked(requests: readonly GatewayRequest[]): void {
    const { revision } = this.#state;
    for (const request of requests) {
      let open = this.#open.get(request.connection);
      if (open === undefined) this.#open.set(request.connection, (open = new Map()));
      open.set(request.request, { request, revision });
    }
  }

  noticed(notices: readonly GatewayNotice[]): void {
    for (const notice of notices) {
      if (notice.kind === 'cancel') this.#open.get(notice.connection)?.delete(notice.request);
      else if (notice.kind === 'closed') this.#open.delete(notice.connection);
    }
  }

  told(events: readonly GatewayEvent[]): void {
    for (const event of events) {
      if (event.kind !== 'answer') continue;
      const open = this.#open.get(event.connection);
      const asked = open?.get(event.request);
      if (asked === undefined) continue;
      open?.delete(event.request);
      this.#judge(asked, event.body);
    }
  }

  #judge({ request, revision }: Asked, body: AnswerBody): void {
    const what = `${this.#name} answered the ${request.kind} of connection ${request.connection}`;
    if (body.kind === 'got' || body.kind === 'listed') {
      const mayBeStale = (request.kind === 'get' || request.kind === 'list') && request.stale;
      if (!mayBeStale && body.revision < revision) {
        violated(
          'fresh reads',
          `${what} as of revision ${body.revision}; ${revision} had been when it was asked`,
        );
      }
    }
    if (request.kind !== 'write') return;
    const outcome = outcomeOf(body);
    if (outcome !== undefined) this.#answers.answered(request.session, request.sequence, outcome);
  }
}

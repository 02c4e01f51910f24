/** What one server answers its gateways, held against what the cluster had done when it was asked. */
import type { AnswerBody, Future } from '../../protocol/index.ts';
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

export interface ServingChecksOptions {
  /** 'server 3' of member 3. */
  readonly name: string;
  readonly state: StateChecks;
  readonly answers: AnswerChecks;
  /** The server's present estimate of cluster time. */
  readonly clusterMs: () => number;
}

/** One for each life of a server. */
export class ServingChecks {
  readonly #name: string;
  readonly #state: StateChecks;
  readonly #answers: AnswerChecks;
  readonly #clusterMs: () => number;
  readonly #member: number;
  readonly #open = new Map<number, Map<number, Asked>>();
  /** Opened on which connection, and not closed. */
  readonly #sessions = new Map<number, string>();
  /** Cluster time by this server's estimate before its present turn: what had passed by then is shown no more. */
  #thenMs = 0;

  constructor({ name, state, answers, clusterMs }: ServingChecksOptions) {
    this.#name = name;
    this.#member = Number(name.slice('server '.length));
    this.#state = state;
    this.#answers = answers;
    this.#clusterMs = clusterMs;
  }

  asked(requests: readonly GatewayRequest[]): void {
    this.#thenMs = this.#clusterMs();
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
      else if (notice.kind === 'closed') {
        this.#open.delete(notice.connection);
        const session = notice.session ?? this.#sessions.get(notice.connection);
        this.#sessions.delete(notice.connection);
        if (session !== undefined) this.#state.sessions.left(this.#member, session);
      }
    }
  }

  told(events: readonly GatewayEvent[]): void {
    for (const event of events) {
      if (event.kind === 'push') {
        for (const { change } of event.changes) {
          if (change.kind === 'future') this.#checkFresh('a push', change.future);
        }
      }
      if (event.kind !== 'answer') continue;
      const open = this.#open.get(event.connection);
      const asked = open?.get(event.request);
      if (asked === undefined) continue;
      open?.delete(event.request);
      const { request } = asked;
      if (request.kind === 'session_open' && event.body.kind === 'session_opened')
        this.#sessions.set(event.connection, request.session);
      if (event.body.kind === 'session_closed') this.#sessions.delete(event.connection);
      this.#judge(asked, event.body);
    }
    this.#thenMs = this.#clusterMs();
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
    if (body.kind === 'got' && body.future !== undefined) this.#checkFresh('a get', body.future);
    if (body.kind === 'awaited') for (const future of body.futures) this.#checkFresh('an await', future);
    if (request.kind !== 'write') return;
    const outcome = outcomeOf(body);
    if (outcome !== undefined) this.#answers.answered(request.session, request.sequence, outcome);
  }

  /** Nothing is handed out whose time has passed by the server's own estimate, swept or not. */
  #checkFresh(what: string, { key, generation, state, expiresAtMs }: Future): void {
    if ((state !== 'resolved' && state !== 'rejected') || expiresAtMs === undefined) return;
    if (expiresAtMs > this.#thenMs) return;
    violated(
      'nothing stale',
      `${this.#name} showed ${key} in generation ${generation} as ${state} in ${what}: it was fresh until ${expiresAtMs}, and it had been ${this.#thenMs} before`,
    );
  }
}

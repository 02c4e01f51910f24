/** What a connection asked for when it might, and may not have any more. */
import { denied } from '../protocol/index.ts';
import type { Scope } from '../scopes/index.ts';
import type { ConnectionId, GatewayNotice } from '../server/index.ts';
import type { Audit } from './audit.ts';
import { refusalOf } from './authorise.ts';
import type { Flights } from './flights.ts';
import type { Outbox } from './outbox.ts';
import type { Subscriptions } from './subscriptions.ts';

export interface Withdrawal {
  /** What is allowed now. */
  readonly scope: Scope;
  readonly connection: ConnectionId;
  readonly principal: string;
  readonly inFlight: Flights;
  readonly subscriptions: Subscriptions;
  readonly outbox: Outbox;
  readonly audit: Audit;
  readonly owner: { notify(notice: GatewayNotice): void };
}

/** Ends what is in flight or followed and no longer allowed. */
export const withdraw = (from: Withdrawal): void => {
  withdrawReads(from);
  withdrawSubscriptions(from);
};

const withdrawReads = (from: Withdrawal): void => {
  const { scope, connection, principal, inFlight, subscriptions, outbox, audit, owner } = from;
  for (const [request, body] of inFlight.reads()) {
    const refusal = refusalOf(body, scope, principal);
    // A subscription that was begun ends as one, below.
    if (refusal === undefined || subscriptions.has(request)) continue;
    const { failure, verb, key } = refusal;
    audit.refused({ failure, verb, key });
    if (inFlight.answered(request) === undefined) {
      outbox.refuse(request, failure);
    } else {
      owner.notify({ kind: 'cancel', connection, request });
      inFlight.over(request);
      audit.answered(request, { kind: 'failed', failure });
      outbox.add({ kind: 'own_answer', request, body: { kind: 'failed', failure } });
    }
  }
};

const withdrawSubscriptions = (from: Withdrawal): void => {
  const { scope, connection, principal, subscriptions, outbox, audit, owner } = from;
  for (const [subscription, patterns] of subscriptions.followed()) {
    const refused = patterns.find((pattern) => !scope.allowsPattern('subscribe', pattern));
    if (refused === undefined) continue;
    const { failure, verb, key } = denied('subscribe', refused, principal);
    audit.refused({ failure, verb, key });
    owner.notify({ kind: 'cancel', connection, request: subscription });
    const bytes = outbox.withdraw(subscription);
    if (bytes > 0) owner.notify({ kind: 'delivered', connection, bytes });
    subscriptions.end(subscription, failure);
  }
};

/**
 * A watch: a line of JSON for each event, until the caller goes. A caller that is slow costs what its subscription
 * buffers, each key's latest state only; beyond that the servers keep a cursor and nothing is sent.
 */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Subscription, SubscriptionEvent } from '../../client/index.ts';
import { FuturestoreError } from '../../protocol/index.ts';
import type { Future } from '../../protocol/index.ts';
import { errorAsJson } from './answers.ts';
import { positionAsText } from './incoming.ts';

/** So often a quiet watch says up to where nothing has happened. */
const progressMs = 15_000;

export type FormatFuture = (future: Future, reveal: boolean) => Record<string, unknown>;

const eventAsJson = (event: SubscriptionEvent, formatFuture: FormatFuture): Record<string, unknown> => {
  switch (event.kind) {
    case 'future':
      return { kind: 'future', ...formatFuture(event.future, false), revision: event.revision };
    case 'deleted':
      return { kind: 'deleted', key: event.key, revision: event.revision };
    case 'reset':
    case 'caught_up':
      return { kind: event.kind, position: positionAsText(event.position) };
    default:
      return event satisfies never;
  }
};

/** Writes until the subscription ends or the signal (the caller has gone) is aborted. */
export const writeWatch = async (
  response: ServerResponse,
  subscription: Subscription,
  formatFuture: FormatFuture,
  signal: AbortSignal,
): Promise<void> => {
  const write = async (data: unknown): Promise<void> => {
    if (!response.write(`${JSON.stringify(data)}\n`)) await once(response, 'drain', { signal });
  };
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  response.flushHeaders();
  let told = '';
  const progress = setInterval(() => {
    const { position } = subscription;
    // A caller that takes nothing hears of it when it does.
    if (position === undefined || response.writableNeedDrain) return;
    const text = positionAsText(position);
    if (text === told) return;
    told = text;
    response.write(`${JSON.stringify({ kind: 'progress', position: text })}\n`);
  }, progressMs);
  try {
    for await (const event of subscription) await write(eventAsJson(event, formatFuture));
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof FuturestoreError)) throw error;
    await write({ kind: 'ended', error: errorAsJson(error) });
  } finally {
    clearInterval(progress);
    response.end();
  }
};

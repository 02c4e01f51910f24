/**
 * When a client that found no room may come back. Before a WebSocket stands, HTTP's own field says it: `503` with
 * `Retry-After: SECONDS`. When one has been opened, the reason of its close begins with it: `retry-after=SECONDS`, and what
 * follows a '; ' is for people. A frame could not say it: older clients refuse what they do not know.
 */

/** Nobody is kept away for longer, whatever is said. */
const retryAfterMsMax = 3_600_000;

/** HTTP has whole seconds. */
export const retryAfterSeconds = (ms: number): number => Math.ceil(ms / 1000);

export const reasonWithRetryAfter = (ms: number, text: string): string =>
  `retry-after=${retryAfterSeconds(ms)}; ${text}`;

/** What the reason of a close says; undefined: nothing. */
export const retryAfterMsOfReason = (reason: string): number | undefined =>
  millisecondsOf(/^retry-after=([0-9]{1,9})(?:;|$)/.exec(reason)?.[1]);

/** What the HTTP field says. A date, which HTTP also allows, says nothing: clocks differ. */
export const retryAfterMsOfField = (field: string | undefined): number | undefined =>
  millisecondsOf(/^\s*([0-9]{1,9})\s*$/.exec(field ?? '')?.[1]);

const millisecondsOf = (seconds: string | undefined): number | undefined =>
  seconds === undefined ? undefined : Math.min(retryAfterMsMax, Number(seconds) * 1000);

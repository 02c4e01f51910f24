/** What a request ends with when its own time is over: what the caller must know first is why, and what may still happen. */
import { FuturestoreError } from '../protocol/index.ts';
import type { ConnectionState } from './connection-state.ts';
import { TimedOutError } from './errors.ts';
import { describe } from './requests.ts';
import type { Pending } from './requests.ts';

interface Circumstances {
  readonly state: ConnectionState;
  /** How many the client has. */
  readonly endpoints: number;
  readonly everConnected: boolean;
}

export function notAnswered(
  pending: Pending,
  { state, endpoints, everConnected }: Circumstances,
): FuturestoreError {
  const { content, lastFailure } = pending;
  const after = pending.timeoutMs === undefined ? '' : ` within ${String(pending.timeoutMs)} ms`;
  const doubtful = content.kind === 'write' && pending.sent;
  const doubt = doubtful ? '; it was sent, and may happen all the same' : '';
  if (!everConnected && !pending.sent) {
    const servers = endpoints === 1 ? 'the server could not' : `no server of ${String(endpoints)} could`;
    const why = state.kind === 'waiting' ? `: ${state.lastError.message}` : '';
    const code = state.kind === 'waiting' ? state.lastError.code : 'UNAVAILABLE';
    return new FuturestoreError(code, `${servers} be reached${after}${why}`);
  }
  const what = `${describe(content)} was not answered${after}`;
  if (lastFailure?.code === 'UNAVAILABLE') {
    return new FuturestoreError('UNAVAILABLE', `${what}: ${lastFailure.message}${doubt}`);
  }
  const why = state.kind === 'waiting' ? `: ${state.lastError.message}` : '';
  return new TimedOutError(`${what}${why}${doubt}`, doubtful);
}

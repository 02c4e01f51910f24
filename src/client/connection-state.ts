/**
 * Where the client's connection stands, and every way it moves: a total function of state and event, without I/O,
 * clock or chance of its own. The driver (connection.ts) performs the effects.
 *
 * Invariants: at most two links are open, and two only while moving; requests belong to exactly one link, the one
 * named by `link` of the state; no state but `closed` is final.
 */
import { FuturestoreError } from '../protocol/index.ts';
import type { Welcome } from '../protocol/index.ts';

/** The driver's number for one socket; never reused. */
export type LinkId = number;

export type Problem = {
  /**
   * fatal: told not to come back. refused: by this endpoint, for who we are or what it is; others may differ.
   * suspected: perhaps refused, perhaps only overloaded.
   */
  readonly verdict: 'retry' | 'suspected' | 'refused' | 'fatal';
  readonly error: FuturestoreError;
  /** The endpoint has no room, and said when to come back. */
  readonly retryAfterMs?: number | undefined;
};

/** It is not tried before then. */
interface FullEndpoint {
  readonly endpoint: string;
  readonly untilMs: number;
}

/** Tries since a connection last stood for a while. */
interface Tries {
  /** Failed ones; each of the endpoints in turn. */
  readonly attempt: number;
  /** Endpoints that refused us in their last try. When all have, more tries are futile. */
  readonly refusedBy: readonly string[];
  /** A server has welcomed us before, so a suspected refusal is none. */
  readonly known: boolean;
  /** Endpoints that said when to come back. */
  readonly full: readonly FullEndpoint[];
}

interface Dialing {
  readonly kind: 'connecting';
  readonly link: LinkId;
  readonly endpoint: string;
  /** The socket must be open and greeted by then. */
  readonly deadlineAtMs: number;
  readonly tries: Tries;
  /** It is where the server that was left sent us, and may be none of our own endpoints: its refusal says nothing of those. */
  readonly hinted?: true;
}

interface Pausing {
  readonly kind: 'waiting';
  readonly retryAtMs: number;
  readonly lastError: FuturestoreError;
  readonly tries: Tries;
  /** Where the server that is left says that we should go. */
  readonly hint?: string;
}

interface Established {
  readonly link: LinkId;
  readonly endpoint: string;
  readonly server: Welcome;
  readonly sinceMs: number;
  readonly tries: Tries;
}

/** The server asks us to go, and may close; another connection is made while this one still serves. */
interface Moving extends Established {
  readonly kind: 'moving';
  readonly next: Dialing | Pausing;
  /** The server that is left takes us again, too. */
  readonly here?: true;
}

export type ConnectionState =
  | Dialing
  | Pausing
  | ({ readonly kind: 'connected' } & Established)
  | Moving
  /** Closed by us; the other side has not confirmed yet. */
  | {
      readonly kind: 'closing';
      readonly link: LinkId;
      readonly deadlineAtMs: number;
      readonly error: FuturestoreError;
    }
  | { readonly kind: 'closed'; readonly error: FuturestoreError };

export type ConnectionEvent =
  | { readonly kind: 'welcomed'; readonly link: LinkId; readonly server: Welcome }
  | { readonly kind: 'lost'; readonly link: LinkId; readonly problem: Problem }
  /** `hint`: one of the endpoints that we know; `here`: this server takes us again, too. */
  | {
      readonly kind: 'goaway';
      readonly link: LinkId;
      readonly graceMs: number;
      readonly hint?: string;
      readonly here?: true;
    }
  /** The time that `alarmAtMs` named has come. */
  | { readonly kind: 'alarm' }
  | { readonly kind: 'close'; readonly error: FuturestoreError };

export type ConnectionEffect =
  | { readonly kind: 'open'; readonly link: LinkId; readonly endpoint: string }
  /** Close it in good order; nothing from it counts any more (except its end, while closing). */
  | { readonly kind: 'close'; readonly link: LinkId }
  | { readonly kind: 'terminate'; readonly link: LinkId }
  /** Requests go over this link from now on. */
  | { readonly kind: 'adopt'; readonly link: LinkId; readonly server: Welcome }
  /** Requests have no link. */
  | { readonly kind: 'orphan' }
  /** It is over: everything unanswered fails. */
  | { readonly kind: 'fail'; readonly error: FuturestoreError };

export interface Transition {
  readonly state: ConnectionState;
  readonly effects: readonly ConnectionEffect[];
}

/** What a transition takes from the world. */
export interface World {
  readonly nowMs: number;
  readonly endpointCount: number;
  readonly connectTimeoutMs: number;
  readonly closeTimeoutMs: number;
  nextLink(): LinkId;
  /** None of those that are `full`, and another one than `leaving`, if there is another. */
  nextEndpoint(leaving: string | undefined, full: readonly string[]): string;
  /** Jittered. */
  backoffMs(attempt: number): number;
  /** No less than what was told, jittered. */
  comeBackMs(toldMs: number): number;
  /** When to leave a server that goes away within this time: spread, so that not all arrive elsewhere at once. */
  spreadMs(graceMs: number): number;
}

/** A connection that lasted this long was a good one: the next trouble starts with short waits again. */
const stableAfterMs = 10_000;

const noTries: Tries = { attempt: 0, refusedBy: [], known: false, full: [] };

/** So many rounds of failed tries, about a second, before a suspicion that all endpoints gave counts: overload passes. */
const suspectedRoundsMin = 5;

/**
 * How long to wait after so many failed tries in a row. Only when all endpoints have had theirs the waits grow: one that
 * serves must not be found late because others are gone for good, and each is tried no more often than were it alone.
 */
function pauseMs(failedTries: number, world: World): number {
  const roundIsOver = failedTries % world.endpointCount === 0;
  return world.backoffMs(roundIsOver ? failedTries / world.endpointCount - 1 : 0);
}

/** When to try again: as the backoff says, but while all endpoints are full not before the first of them has asked us back. */
function retryAtMsAfter(attempt: number, full: readonly FullEndpoint[], world: World): number {
  const soonestMs = world.nowMs + pauseMs(attempt, world);
  const closed = full.filter(({ untilMs }) => untilMs > soonestMs);
  return closed.length < world.endpointCount ? soonestMs : Math.min(...closed.map(({ untilMs }) => untilMs));
}

/** The endpoints that are full, now that this one has given this problem. */
function fullAfter(
  { full }: Tries,
  endpoint: string,
  problem: Problem,
  world: World,
): readonly FullEndpoint[] {
  const others = full.filter((other) => other.endpoint !== endpoint && other.untilMs > world.nowMs);
  if (problem.retryAfterMs === undefined) return others;
  return [...others, { endpoint, untilMs: world.nowMs + world.comeBackMs(problem.retryAfterMs) }];
}

export function initialTransition(world: World): Transition {
  return dial(noTries, world);
}

/** When the driver must deliver `alarm`; undefined: never. */
export function alarmAtMs(state: ConnectionState): number | undefined {
  switch (state.kind) {
    case 'connecting':
    case 'closing':
      return state.deadlineAtMs;
    case 'waiting':
      return state.retryAtMs;
    case 'moving':
      return alarmAtMs(state.next);
    case 'connected':
    case 'closed':
      return undefined;
    default:
      return state satisfies never;
  }
}

export function transition(state: ConnectionState, event: ConnectionEvent, world: World): Transition {
  switch (state.kind) {
    case 'connecting':
      return whileConnecting(state, event, world);
    case 'waiting':
      return whileWaiting(state, event, world);
    case 'connected':
      return whileConnected(state, event, world);
    case 'moving':
      return whileMoving(state, event, world);
    case 'closing':
      return whileClosing(state, event);
    case 'closed':
      return stay(state);
    default:
      return state satisfies never;
  }
}

const stay = (state: ConnectionState): Transition => ({ state, effects: [] });

const closed = (error: FuturestoreError, effects: readonly ConnectionEffect[] = []): Transition => ({
  state: { kind: 'closed', error },
  effects: [...effects, { kind: 'fail', error }],
});

function dial(
  tries: Tries,
  world: World,
  leaving?: string,
  hint?: string,
): { readonly state: Dialing; readonly effects: ConnectionEffect[] } {
  const link = world.nextLink();
  const full = tries.full.filter(({ untilMs }) => untilMs > world.nowMs).map((one) => one.endpoint);
  const endpoint = hint ?? world.nextEndpoint(leaving, full);
  const deadlineAtMs = world.nowMs + world.connectTimeoutMs;
  return {
    state: {
      kind: 'connecting',
      link,
      endpoint,
      deadlineAtMs,
      tries,
      ...(hint !== undefined && { hinted: true }),
    },
    effects: [{ kind: 'open', link, endpoint }],
  };
}

function pause(dialing: Dialing, problem: Problem, world: World): Pausing {
  const others = dialing.tries.refusedBy.filter((endpoint) => endpoint !== dialing.endpoint);
  const { attempt: before, known } = dialing.tries;
  const refuses = problem.verdict === 'refused' || (problem.verdict === 'suspected' && !known);
  const refusedBy = refuses && dialing.hinted === undefined ? [...others, dialing.endpoint] : others;
  const attempt = before + 1;
  const full = fullAfter(dialing.tries, dialing.endpoint, problem, world);
  const retryAtMs = retryAtMsAfter(attempt, full, world);
  return { kind: 'waiting', retryAtMs, lastError: problem.error, tries: { attempt, refusedBy, known, full } };
}

const noWelcome = (dialing: Dialing, world: World): Problem => ({
  verdict: 'retry',
  error: new FuturestoreError(
    'UNAVAILABLE',
    `${dialing.endpoint} did not answer within ${String(world.connectTimeoutMs)} ms`,
  ),
});

function dialingFailed(
  state: Dialing,
  problem: Problem,
  world: World,
  effects: readonly ConnectionEffect[],
): Transition {
  if (problem.verdict === 'fatal') return closed(problem.error, effects);
  const next = pause(state, problem, world);
  const sure =
    problem.verdict !== 'suspected' || next.tries.attempt >= suspectedRoundsMin * world.endpointCount;
  if (sure && next.tries.refusedBy.length >= world.endpointCount) return closed(problem.error, effects);
  return { state: next, effects: [...effects, { kind: 'orphan' }] };
}

function whileConnecting(state: Dialing, event: ConnectionEvent, world: World): Transition {
  switch (event.kind) {
    case 'welcomed':
      if (event.link !== state.link) return stay(state);
      return {
        state: {
          kind: 'connected',
          link: state.link,
          endpoint: state.endpoint,
          server: event.server,
          sinceMs: world.nowMs,
          tries: state.tries,
        },
        effects: [{ kind: 'adopt', link: state.link, server: event.server }],
      };
    case 'lost':
      if (event.link !== state.link) return stay(state);
      return dialingFailed(state, event.problem, world, []);
    case 'alarm':
      return dialingFailed(state, noWelcome(state, world), world, [{ kind: 'terminate', link: state.link }]);
    case 'close':
      return closed(event.error, [{ kind: 'terminate', link: state.link }]);
    case 'goaway':
      return stay(state);
    default:
      return event satisfies never;
  }
}

function whileWaiting(state: Pausing, event: ConnectionEvent, world: World): Transition {
  switch (event.kind) {
    case 'alarm':
      return dial(state.tries, world, undefined, state.hint);
    case 'close':
      return closed(event.error);
    case 'welcomed':
    case 'lost':
    case 'goaway':
      return stay(state);
    default:
      return event satisfies never;
  }
}

/** What came of an established connection that broke. */
function established(state: Established, problem: Problem, world: World): Pausing {
  const before = world.nowMs - state.sinceMs >= stableAfterMs ? 0 : state.tries.attempt;
  const attempt = before + 1;
  const full = fullAfter(state.tries, state.endpoint, problem, world);
  const retryAtMs = retryAtMsAfter(attempt, full, world);
  const tries = { attempt, refusedBy: [], known: true, full };
  return { kind: 'waiting', retryAtMs, lastError: problem.error, tries };
}

function closeEstablished(state: Established, error: FuturestoreError, world: World): Transition {
  return {
    state: { kind: 'closing', link: state.link, deadlineAtMs: world.nowMs + world.closeTimeoutMs, error },
    effects: [
      { kind: 'close', link: state.link },
      { kind: 'fail', error },
    ],
  };
}

function whileConnected(
  state: Extract<ConnectionState, { kind: 'connected' }>,
  event: ConnectionEvent,
  world: World,
): Transition {
  switch (event.kind) {
    case 'lost':
      if (event.link !== state.link) return stay(state);
      if (event.problem.verdict === 'fatal') return closed(event.problem.error);
      return { state: established(state, event.problem, world), effects: [{ kind: 'orphan' }] };
    case 'goaway': {
      if (event.link !== state.link) return stay(state);
      const next: Pausing = {
        kind: 'waiting',
        retryAtMs: world.nowMs + world.spreadMs(event.graceMs),
        lastError: new FuturestoreError('UNAVAILABLE', `${state.endpoint} is going away`),
        tries: { ...noTries, known: true, full: state.tries.full },
        ...(event.hint !== undefined && { hint: event.hint }),
      };
      return { state: { ...state, kind: 'moving', next, ...(event.here && { here: true }) }, effects: [] };
    }
    case 'close':
      return closeEstablished(state, event.error, world);
    case 'welcomed':
    case 'alarm':
      return stay(state);
    default:
      return event satisfies never;
  }
}

/** The grace, or a pause between tries, was for while the old one served: now nothing does. */
function soonerAlone(next: Dialing | Pausing, world: World): Dialing | Pausing {
  if (next.kind !== 'waiting') return next;
  const { attempt, full } = next.tries;
  const soonestMs = retryAtMsAfter(Math.max(1, attempt), full, world);
  return soonestMs < next.retryAtMs ? { ...next, retryAtMs: soonestMs } : next;
}

/** The server that is left has its turn last, when each other endpoint has had one and nobody there took us. */
function comesBack({ here, endpoint }: Moving, { attempt, full }: Tries, world: World): boolean {
  if (here === undefined || (attempt + 1) % world.endpointCount !== 0) return false;
  return !full.some((one) => one.endpoint === endpoint && one.untilMs > world.nowMs);
}

function whileMoving(state: Moving, event: ConnectionEvent, world: World): Transition {
  const { next } = state;
  switch (event.kind) {
    case 'welcomed': {
      if (next.kind !== 'connecting' || event.link !== next.link) return stay(state);
      const moved = whileConnecting(next, event, world);
      return { state: moved.state, effects: [...moved.effects, { kind: 'close', link: state.link }] };
    }
    case 'lost':
      // The old one's end was announced, so whatever its close code says it is no verdict on us: a session that
      // is already taken up elsewhere looks like a replacement to the old server.
      if (event.link === state.link)
        return { state: soonerAlone(next, world), effects: [{ kind: 'orphan' }] };
      if (next.kind !== 'connecting' || event.link !== next.link) return stay(state);
      return stay({ ...state, next: pause(next, event.problem, world) });
    case 'alarm': {
      if (next.kind === 'connecting') {
        const failed = pause(next, noWelcome(next, world), world);
        return { state: { ...state, next: failed }, effects: [{ kind: 'terminate', link: next.link }] };
      }
      const back = next.hint === undefined && comesBack(state, next.tries, world);
      const dialed = dial(next.tries, world, state.endpoint, back ? state.endpoint : next.hint);
      return { state: { ...state, next: dialed.state }, effects: dialed.effects };
    }
    case 'close': {
      const closing = closeEstablished(state, event.error, world);
      if (next.kind === 'waiting') return closing;
      return { state: closing.state, effects: [{ kind: 'terminate', link: next.link }, ...closing.effects] };
    }
    case 'goaway':
      // We go already; that it takes us again may be said only now, when the connection is to end for its age.
      return stay(event.link === state.link && event.here ? { ...state, here: true } : state);
    default:
      return event satisfies never;
  }
}

function whileClosing(
  state: Extract<ConnectionState, { kind: 'closing' }>,
  event: ConnectionEvent,
): Transition {
  const error = new FuturestoreError(
    'CONNECTION_CLOSED',
    'the client is closed: make a new one with connect()',
  );
  switch (event.kind) {
    case 'lost':
      if (event.link !== state.link) return stay(state);
      return { state: { kind: 'closed', error }, effects: [] };
    case 'alarm':
      return { state: { kind: 'closed', error }, effects: [{ kind: 'terminate', link: state.link }] };
    case 'welcomed':
    case 'goaway':
    case 'close':
      return stay(state);
    default:
      return event satisfies never;
  }
}

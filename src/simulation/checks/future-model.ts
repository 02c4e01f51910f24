/**
 * One key as a sequential object: what each operation may do to it and may be told. Not every number can be known (a
 * write without an answer takes a revision that nobody has seen, and time passes between operations), so a step gives
 * all states that are possible after it.
 */
import type { HistoryError, HistorySeen, HistoryWrite, HistoryWritten } from './history.ts';

export interface ModelOptions {
  /**
   * By how much clients' clocks (and cluster time against them) may be apart when it is judged that a deadline or the
   * end of freshness cannot have come yet; Infinity: it may come at any time.
   */
  readonly earlySlackMs: number;
  /** The same for judging that a value should not have been shown as fresh any more; Infinity: it always may. */
  readonly lateSlackMs: number;
}

/** `lapsed`: pending, its deadline has passed, and the log does not say so yet. */
type Kind = 'absent' | 'pending' | 'lapsed' | 'resolved' | 'rejected' | 'expired';

export interface ModelState {
  readonly kind: Kind;
  /** Exactly, or at least. Of an absent key: the last one that was used. */
  readonly generation: number;
  readonly generationExact: boolean;
  readonly revision: number;
  readonly revisionExact: boolean;
  /** Resolved: the value; rejected: the code. */
  readonly content: string | undefined;
  readonly tied: boolean;
  /** When time may end it at the earliest, and at the latest; undefined: never. */
  readonly earliestMs: number | undefined;
  readonly latestMs: number;
  /** Time has done something to it that it cannot have done before. */
  readonly sinceMs: number;
}

export const initialState: ModelState = {
  kind: 'absent',
  generation: 0,
  generationExact: false,
  revision: 0,
  revisionExact: false,
  content: undefined,
  tied: false,
  earliestMs: undefined,
  latestMs: Infinity,
  sinceMs: -Infinity,
};

export const stateText = (state: ModelState): string =>
  `${state.kind} ${state.generation}${state.generationExact ? '' : '+'} ${state.revision}` +
  `${state.revisionExact ? '' : '+'} ${state.content} ${state.tied} ${state.earliestMs} ${state.latestMs} ${state.sinceMs}`;

/** An operation on one key, and when it can have happened. */
export interface KeyOperation {
  readonly callMs: number;
  /** Infinity: it was not answered. */
  readonly returnMs: number;
  readonly action:
    | { readonly kind: 'read'; readonly seen: HistorySeen }
    | {
        readonly kind: 'write';
        readonly write: HistoryWrite;
        readonly output: HistoryWritten | HistoryError | 'unknown';
      };
}

/** The errors that say something about the key. Any other one leaves open what happened, or says that nothing did. */
const telling = new Set(['PRECONDITION_FAILED', 'ALREADY_SETTLED', 'NOT_FOUND', 'NO_VALUE']);
const harmless = new Set(['INVALID_ARGUMENT', 'INVALID_KEY', 'VALUE_TOO_LARGE', 'PERMISSION_DENIED']);

export const isTelling = (error: HistoryError): boolean => telling.has(error.error);
export const isHarmless = (error: HistoryError): boolean => harmless.has(error.error);

type Effect =
  | { readonly kind: 'changed'; readonly next: ModelState }
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'failed'; readonly code: string };

interface Span {
  readonly callMs: number;
  readonly returnMs: number;
}

const shownState = (state: ModelState): HistoryWritten['state'] => {
  switch (state.kind) {
    case 'absent':
    case 'lapsed':
      return 'pending';
    case 'pending':
    case 'resolved':
    case 'rejected':
    case 'expired':
      return state.kind;
    default:
      return state.kind satisfies never;
  }
};

/** Of the generations and revisions that are possible, only this one is; undefined: it is not possible. */
const knowing = (state: ModelState, generation: number, revision: number): ModelState | undefined => {
  const generationFits = state.generationExact
    ? generation === state.generation
    : generation >= state.generation;
  if (!generationFits || !revisionFits(state, revision)) return undefined;
  // The log may still say what time has done, with another revision.
  const revisionExact = state.kind !== 'expired';
  return { ...state, generation, generationExact: true, revision, revisionExact };
};

const revisionFits = (state: ModelState, revision: number): boolean =>
  state.revisionExact ? revision === state.revision : revision >= state.revision;

/** The state at some moment of the span, as time may have changed it by then. */
const inTime = (state: ModelState, span: Span, options: ModelOptions): ModelState[] => {
  const { earliestMs, latestMs } = state;
  const mayBeDue = earliestMs !== undefined && earliestMs - options.earlySlackMs <= span.returnMs;
  const ended = {
    ...state,
    earliestMs: undefined,
    latestMs: Infinity,
    tied: false,
    revisionExact: false,
    sinceMs: Math.max(state.sinceMs, (earliestMs ?? -Infinity) - options.earlySlackMs),
  };
  const byLog = (code: string): ModelState => ({
    ...ended,
    kind: 'rejected',
    content: code,
    revision: state.revision + 1,
  });
  switch (state.kind) {
    case 'absent':
    case 'expired':
      return [state];
    case 'pending': {
      const states = [state];
      if (mayBeDue)
        states.push(
          { ...ended, kind: 'lapsed', revisionExact: state.revisionExact },
          byLog('DEADLINE_EXCEEDED'),
        );
      if (state.tied) states.push({ ...byLog('PRODUCER_LOST'), sinceMs: state.sinceMs });
      return states;
    }
    case 'lapsed':
      return [state, byLog('DEADLINE_EXCEEDED')];
    case 'resolved':
    case 'rejected': {
      const states = latestMs + options.lateSlackMs < span.callMs ? [] : [state];
      if (mayBeDue) states.push({ ...ended, kind: 'expired', content: undefined });
      return states;
    }
    default:
      return state.kind satisfies never;
  }
};

const changedTo = (state: ModelState, kind: Kind, content: string | undefined): ModelState => ({
  ...state,
  kind,
  content,
  tied: false,
  revision: state.revision + 1,
  revisionExact: false,
  earliestMs: undefined,
  latestMs: Infinity,
});

/** The next generation of a key that is there is exactly one more; of one that was deleted, the memory may be gone. */
const opened = (state: ModelState, kind: Kind, content: string | undefined): ModelState => ({
  ...changedTo(state, kind, content),
  generation: state.generation + 1,
  generationExact: state.generationExact && state.kind !== 'absent',
});

const until = (state: ModelState, durationMs: number | undefined, span: Span): ModelState =>
  durationMs === undefined
    ? state
    : { ...state, earliestMs: span.callMs + durationMs, latestMs: span.returnMs + durationMs };

const declare = (state: ModelState, write: HistoryWrite, span: Span): Effect[] => {
  const fresh = (): Effect => ({
    kind: 'changed',
    next: until(
      { ...opened(state, 'pending', undefined), tied: write.tied === true },
      write.deadlineMs,
      span,
    ),
  });
  if (state.kind === 'absent') return [fresh()];
  if (state.kind !== 'pending') return [write.renew === true ? fresh() : { kind: 'unchanged' }];
  // Taken up again by its own producer, or left alone where it is another's: the history does not say who asked.
  if (write.deadlineMs === undefined && write.tied !== true) return [{ kind: 'unchanged' }];
  const { earliestMs, latestMs } = state;
  const same = {
    ...changedTo(state, 'pending', undefined),
    tied: state.tied || write.tied === true,
    earliestMs,
    latestMs,
  };
  return [{ kind: 'unchanged' }, { kind: 'changed', next: until(same, write.deadlineMs, span) }];
};

/** Its instant is moved; the very same instant by chance: then nothing happens. */
const refreshed = (state: ModelState, ttlMs: number, span: Span): Effect[] => {
  const next = until(changedTo(state, state.kind, state.content), ttlMs, span);
  const effects: Effect[] = [{ kind: 'changed', next }];
  if (state.earliestMs !== undefined) effects.push({ kind: 'unchanged' });
  return effects;
};

const settle = (state: ModelState, write: HistoryWrite, span: Span): Effect[] => {
  const kind = write.kind === 'resolve' ? 'resolved' : 'rejected';
  const content = write.kind === 'resolve' ? write.value : (write.code ?? 'REJECTED');
  if (state.kind === 'pending') {
    return [{ kind: 'changed', next: until(changedTo(state, kind, content), write.ttlMs, span) }];
  }
  if (state.kind === 'resolved') {
    if (kind === 'resolved' && state.content === content) {
      return write.ttlMs === undefined ? [{ kind: 'unchanged' }] : refreshed(state, write.ttlMs, span);
    }
    if (write.supersede !== true) return [{ kind: 'failed', code: 'ALREADY_SETTLED' }];
  }
  return [{ kind: 'changed', next: until(opened(state, kind, content), write.ttlMs, span) }];
};

const effectsOf = (state: ModelState, write: HistoryWrite, span: Span): Effect[] => {
  switch (write.kind) {
    case 'declare':
      return declare(state, write, span);
    case 'resolve':
    case 'reject':
      return settle(state, write, span);
    case 'delete':
      if (state.kind === 'absent') return [{ kind: 'failed', code: 'NOT_FOUND' }];
      return [{ kind: 'changed', next: changedTo(state, 'absent', undefined) }];
    case 'touch':
      if (state.kind === 'absent') return [{ kind: 'failed', code: 'NOT_FOUND' }];
      if (state.kind !== 'resolved' && state.kind !== 'rejected')
        return [{ kind: 'failed', code: 'NO_VALUE' }];
      return refreshed(state, write.ttlMs ?? 0, span);
    default:
      return write.kind satisfies never;
  }
};

/** The state if the preconditions hold in it (with what that tells of it), and whether they may not hold. */
const conditioned = (
  state: ModelState,
  { ifRevision, ifGeneration, ifAbsent }: HistoryWrite,
): { readonly holds: ModelState | undefined; readonly mayFail: boolean } => {
  const isThere = state.kind !== 'absent';
  let holds: ModelState | undefined = state;
  let mayFail = false;
  if (ifRevision !== undefined) {
    const fits = isThere && revisionFits(state, ifRevision);
    if (!fits || !state.revisionExact) mayFail = true;
    holds = fits ? { ...state, revision: ifRevision, revisionExact: state.kind !== 'expired' } : undefined;
  }
  if (ifGeneration !== undefined) {
    const fits =
      isThere &&
      (state.generationExact ? ifGeneration === state.generation : ifGeneration >= state.generation);
    if (!fits || !state.generationExact) mayFail = true;
    if (holds !== undefined)
      holds = fits ? { ...holds, generation: ifGeneration, generationExact: true } : undefined;
  }
  if (ifAbsent === true && isThere) {
    mayFail = true;
    holds = undefined;
  }
  return { holds, mayFail };
};

const readSteps = (state: ModelState, seen: HistorySeen, span: Span, options: ModelOptions): ModelState[] => {
  const after: ModelState[] = [];
  for (const now of inTime(state, span, options)) {
    if (seen.state === 'absent') {
      if (now.kind === 'absent') after.push(now);
      continue;
    }
    // Whether a deadline has passed unseen makes no difference to a reader: the one without suffices.
    if (now.kind === 'absent' || now.kind !== seen.state) {
      if (now !== state || now.kind !== 'lapsed' || seen.state !== 'pending') continue;
    }
    const content =
      seen.state === 'resolved' ? seen.value : seen.state === 'rejected' ? seen.code : undefined;
    if (content !== now.content) continue;
    const known = knowing(now, seen.generation, seen.revision);
    if (known !== undefined) after.push(known);
    // By its estimate of cluster time a server may be ahead of the log, and another one not.
    const asItWas = now.kind === 'expired' ? knowing(state, seen.generation, seen.revision) : undefined;
    if (asItWas !== undefined && state.kind !== 'expired') after.push(asItWas);
  }
  return after;
};

const writeSteps = (
  state: ModelState,
  write: HistoryWrite,
  output: HistoryWritten | HistoryError | 'unknown',
  span: Span,
  options: ModelOptions,
): ModelState[] => {
  const after: ModelState[] = [];
  for (const now of inTime(state, span, options)) {
    const { holds, mayFail } = conditioned(now, write);
    if (output !== 'unknown' && 'error' in output && output.error === 'PRECONDITION_FAILED') {
      if (mayFail) after.push(now);
      continue;
    }
    if (holds === undefined) continue;
    for (const effect of effectsOf(holds, write, span)) {
      const next = afterEffect(holds, effect, output);
      if (next !== undefined) after.push(next);
    }
  }
  return after;
};

/** undefined: it is not what the client was told. An unknown outcome that changes nothing need not have happened. */
const afterEffect = (
  state: ModelState,
  effect: Effect,
  output: HistoryWritten | HistoryError | 'unknown',
): ModelState | undefined => {
  if (output === 'unknown') return effect.kind === 'changed' ? effect.next : undefined;
  if ('error' in output) return effect.kind === 'failed' && effect.code === output.error ? state : undefined;
  if (effect.kind === 'failed' || output.unchanged !== (effect.kind === 'unchanged')) return undefined;
  const next = effect.kind === 'changed' ? effect.next : state;
  // Of a deletion: the state that was deleted.
  const shown = shownState(next.kind === 'absent' ? state : next);
  if (output.state !== shown) return undefined;
  return knowing(next, output.generation, output.revision);
};

/** All states that are possible once the operation has happened in this one, and was told what it was told. */
export const step = (state: ModelState, operation: KeyOperation, options: ModelOptions): ModelState[] => {
  if (operation.returnMs < state.sinceMs) return [];
  const { action } = operation;
  if (action.kind === 'read') return readSteps(state, action.seen, operation, options);
  return writeSteps(state, action.write, action.output, operation, options);
};

/**
 * Whether a history can be explained by operations that happened one after the other, each at a moment between its
 * call and its answer: the search of Wing and Gong with Lowe's memoization (G. Lowe: Testing for linearizability,
 * 2017), key by key (linearizability is local: M. Herlihy, J. Wing, 1990). An operation without an answer may have
 * happened at any time since its call, or never.
 *
 * A batch is split into its keys, so that each key's part must fit by itself. What parting loses is checked apart,
 * by revisions: they are cluster-wide and one for a whole batch, so all parts have the same one, no two operations
 * share one, later operations have greater ones, and who has seen one part of a batch sees the others too.
 */
import { initialState, isHarmless, isTelling, stateText, step } from './future-model.ts';
import type { KeyOperation, ModelOptions, ModelState } from './future-model.ts';
import type { HistoryOperation, HistorySeen, HistoryWrite, HistoryWritten, Verdict } from './history.ts';
import { checkRevisions } from './revision-order.ts';

export interface LinearizabilityOptions extends Partial<ModelOptions> {
  /** Steps of the search for one key before it is given up as undecided. Default 2,000,000. */
  readonly stepsMax?: number;
}

const stepsMaxDefault = 2_000_000;

/**
 * What is undecided was not judged, and could hide what is wrong: more than this share of the keys is no success. Of tens
 * of thousands of keys a few may have so many writes without an answer that no bound on work is enough; of the few of a
 * short run none may be.
 */
export const undecidedShareMax = 0.0005;
const explainedMax = 10;

interface Operation extends KeyOperation {
  readonly source: HistoryOperation;
  /** Unanswered ones that are alike but for their call are tried in the order of their calls only. */
  readonly twin: string | undefined;
}

const returned = (operation: HistoryOperation): number => operation.returnMs ?? Infinity;

const addWrite = (
  into: Map<string, Operation[]>,
  source: HistoryOperation,
  write: HistoryWrite,
  output: HistoryWritten | { readonly error: string } | 'unknown',
): void => {
  let told = output;
  if (told !== 'unknown' && 'error' in told && !isTelling(told)) {
    if (isHarmless(told)) return;
    told = 'unknown';
  }
  add(into, write.key, {
    source,
    callMs: source.callMs,
    returnMs: told === 'unknown' ? Infinity : returned(source),
    action: { kind: 'write', write, output: told },
    twin: undefined,
  });
};

const add = (into: Map<string, Operation[]>, key: string, operation: Operation): void => {
  const present = into.get(key);
  if (present === undefined) into.set(key, [operation]);
  else present.push(operation);
};

/** The operations of each key, by their calls. What says nothing of the key is left out. */
const byKey = (history: readonly HistoryOperation[]): Map<string, Operation[]> => {
  const keys = new Map<string, Operation[]>();
  for (const source of history) {
    if (source.kind === 'get') {
      if (source.output === 'unknown' || 'error' in source.output) continue;
      const { callMs } = source;
      const action = { kind: 'read', seen: source.output } as const;
      add(keys, source.key, { source, callMs, returnMs: returned(source), action, twin: undefined });
    } else if (source.kind === 'batch') {
      // Which part of a refused batch was at fault is not in the history; a refused batch has done nothing.
      if (source.output !== 'unknown' && 'error' in source.output && isTelling(source.output)) continue;
      for (const [at, write] of source.input.entries()) {
        const { output } = source;
        const part = output === 'unknown' || 'error' in output ? 'unknown' : (output[at] ?? 'unknown');
        addWrite(keys, source, write, part);
      }
    } else addWrite(keys, source, source.input, source.output);
  }
  for (const operations of keys.values()) operations.sort((a, b) => a.callMs - b.callMs);
  return keys;
};

/** Contents that nobody was shown or wrote as well: it makes no difference which of these was written. */
const withTwins = (operations: readonly Operation[]): Operation[] => {
  const uses = new Map<string, number>();
  const use = (content: string | undefined): void => {
    if (content !== undefined) uses.set(content, (uses.get(content) ?? 0) + 1);
  };
  for (const { action } of operations) {
    if (action.kind === 'write') use(action.write.value);
    else if (action.seen.state === 'resolved') use(action.seen.value);
  }
  return operations.map((operation) => {
    const { action } = operation;
    if (action.kind !== 'write' || action.output !== 'unknown') return operation;
    const { value } = action.write;
    const plain =
      value !== undefined && uses.get(value) === 1 ? { ...action.write, value: '' } : action.write;
    return { ...operation, twin: JSON.stringify(plain) };
  });
};

type Found =
  | { readonly kind: 'ok'; readonly last: ModelState }
  | { readonly kind: 'violated' }
  | { readonly kind: 'undecided' };

interface Frame {
  readonly choices: readonly { readonly at: number; readonly next: ModelState }[];
  tried: number;
  /** What led here: its bit is cleared on the way back. */
  readonly operation: number;
}

class Search {
  readonly #operations: readonly Operation[];
  /** Indices of the unanswered ones. */
  readonly #unanswered: readonly number[];
  readonly #options: ModelOptions;
  readonly #done: Uint16Array;
  readonly #visited = new Set<string>();
  #stepsLeft: number;
  #answeredLeft: number;
  /** The least that any from this one on was told. */
  readonly #leastToldFrom: Told[];
  /** All answered operations before it are done. */
  #low = 0;

  constructor(operations: readonly Operation[], options: ModelOptions, stepsMax: number) {
    this.#operations = withTwins(operations);
    this.#unanswered = [...operations.keys()].filter((at) => operations[at]?.returnMs === Infinity);
    this.#options = options;
    this.#done = new Uint16Array(Math.ceil(operations.length / 16));
    this.#stepsLeft = stepsMax;
    this.#answeredLeft = operations.length - this.#unanswered.length;
    this.#leastToldFrom = operations.map(() => nothingTold);
    for (let at = operations.length - 1; at >= 0; at -= 1)
      this.#leastToldFrom[at] = lesser(toldBy(operations[at]), this.#leastTold(at + 1));
  }

  #leastTold(from: number): Told {
    return this.#leastToldFrom[from] ?? nothingTold;
  }

  run(): Found {
    if (this.#answeredLeft === 0) return { kind: 'ok', last: initialState };
    const stack: Frame[] = [{ choices: this.#choices(initialState), tried: 0, operation: -1 }];
    for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
      const choice = frame.choices[frame.tried];
      if (choice === undefined) {
        stack.pop();
        if (frame.operation >= 0) this.#undo(frame.operation);
        continue;
      }
      frame.tried += 1;
      this.#do(choice.at);
      if (this.#answeredLeft === 0) return { kind: 'ok', last: choice.next };
      const configuration = `${String.fromCharCode(...this.#done)}|${stateText(choice.next)}`;
      if (this.#visited.has(configuration)) {
        this.#undo(choice.at);
        continue;
      }
      this.#visited.add(configuration);
      if (this.#stepsLeft <= 0) return { kind: 'undecided' };
      stack.push({ choices: this.#choices(choice.next), tried: 0, operation: choice.at });
    }
    return { kind: 'violated' };
  }

  #isDone(at: number): boolean {
    return ((this.#done[at >> 4] ?? 0) & (1 << (at & 15))) !== 0;
  }

  #do(at: number): void {
    this.#done[at >> 4] = (this.#done[at >> 4] ?? 0) | (1 << (at & 15));
    if (this.#operations[at]?.returnMs !== Infinity) this.#answeredLeft -= 1;
  }

  #undo(at: number): void {
    this.#done[at >> 4] = (this.#done[at >> 4] ?? 0) & ~(1 << (at & 15));
    if (this.#operations[at]?.returnMs !== Infinity) this.#answeredLeft += 1;
    if (at < this.#low) this.#low = at;
  }

  /**
   * What may happen next: whatever was called before the first answer that is still to come. Answered operations
   * first, in the order of their revisions, which is right almost always; the unanswered only where nothing else helps.
   * A key's revision and generation never fall, and what an operation was told are those after it: so nothing can follow
   * where the state is beyond the least that are still to be told, nor is anybody's turn who was told a greater revision.
   */
  #choices(state: ModelState): { at: number; next: ModelState }[] {
    const operations = this.#operations;
    while (this.#low < operations.length) {
      if (!this.#isDone(this.#low) && operations[this.#low]?.returnMs !== Infinity) break;
      this.#low += 1;
    }
    let firstReturnMs = Infinity;
    let least = nothingTold;
    const open: number[] = [];
    let at = this.#low;
    for (; at < operations.length; at += 1) {
      const operation = operations[at];
      if (operation === undefined || operation.callMs > firstReturnMs) break;
      if (operation.returnMs === Infinity || this.#isDone(at)) continue;
      firstReturnMs = Math.min(firstReturnMs, operation.returnMs);
      least = lesser(toldBy(operation), least);
      open.push(at);
    }
    least = lesser(this.#leastTold(at), least);
    if (isBeyond(state, least)) return [];
    const isReady = (operation: Operation | undefined): boolean => {
      if (operation === undefined || operation.callMs > firstReturnMs) return false;
      const { revision } = toldBy(operation);
      return revision === Infinity || revision === least.revision;
    };
    const ready = open.filter((one) => isReady(operations[one]));
    ready.sort((a, b) => orderOf(operations[a]) - orderOf(operations[b]));
    const twins = new Set<string>();
    for (const one of this.#unanswered) {
      const operation = operations[one];
      if (operation === undefined || operation.callMs > firstReturnMs) break;
      if (this.#isDone(one) || twins.has(operation.twin ?? '')) continue;
      twins.add(operation.twin ?? '');
      ready.push(one);
    }
    const choices: { at: number; next: ModelState }[] = [];
    for (const one of ready) {
      const operation = operations[one];
      if (operation === undefined) continue;
      this.#stepsLeft -= 1;
      for (const next of step(state, operation, this.#options))
        if (!isBeyond(next, least)) choices.push({ at: one, next });
    }
    return choices;
  }
}

/** Infinity: nothing was told of it. */
interface Told {
  readonly revision: number;
  readonly generation: number;
}

const nothingTold: Told = { revision: Infinity, generation: Infinity };

const toldBy = (operation: Operation | undefined): Told => {
  const action = operation?.action;
  if (action === undefined) return nothingTold;
  const told = action.kind === 'read' ? action.seen : action.output;
  return told !== 'unknown' && 'revision' in told ? told : nothingTold;
};

const lesser = (one: Told, other: Told): Told => {
  if (one.revision >= other.revision && one.generation >= other.generation) return other;
  if (one.revision <= other.revision && one.generation <= other.generation) return one;
  return {
    revision: Math.min(one.revision, other.revision),
    generation: Math.min(one.generation, other.generation),
  };
};

const isBeyond = (state: ModelState, { revision, generation }: Told): boolean =>
  state.revision > revision || state.generation > generation;

/** One that is told no revision belongs anywhere: where its call is, as a rule. */
const orderOf = (operation: Operation | undefined): number => {
  const { revision } = toldBy(operation);
  return revision === Infinity ? 0 : revision;
};

/** The history as it was known at an instant: what was answered later was open then. */
const prefixAt = (operations: readonly Operation[], atMs: number): Operation[] => {
  const prefix: Operation[] = [];
  for (const operation of operations) {
    if (operation.callMs > atMs) break;
    if (operation.returnMs <= atMs) prefix.push(operation);
    else if (operation.action.kind === 'write') {
      prefix.push({ ...operation, returnMs: Infinity, action: { ...operation.action, output: 'unknown' } });
    }
  }
  return prefix;
};

const seenText = (seen: HistorySeen | HistoryWritten): string => {
  if (seen.state === 'absent') return 'absent';
  const content = 'value' in seen ? ` "${seen.value}"` : 'code' in seen ? ` ${seen.code}` : '';
  const unchanged = 'unchanged' in seen && seen.unchanged ? ' unchanged' : '';
  return `${seen.state}${content} generation ${seen.generation} revision ${seen.revision}${unchanged}`;
};

const operationText = ({ source, action, returnMs }: Operation): string => {
  const span = `${source.callMs}..${returnMs === Infinity ? '' : returnMs}`;
  if (action.kind === 'read') return `${span} client ${source.client} get: ${seenText(action.seen)}`;
  const { kind, key: _key, ...rest } = action.write;
  const { output } = action;
  const told = output === 'unknown' ? 'unknown' : 'error' in output ? output.error : seenText(output);
  return `${span} client ${source.client} ${kind} ${JSON.stringify(rest)}: ${told}`;
};

/** The shortest time after which the key's history made no sense any more, and what was known then. */
const explain = (
  key: string,
  operations: readonly Operation[],
  options: ModelOptions,
  stepsMax: number,
): string => {
  const instants = [...new Set(operations.map(({ returnMs }) => returnMs))]
    .filter((atMs) => atMs !== Infinity)
    .sort((a, b) => a - b);
  const check = (at: number): Found =>
    new Search(prefixAt(operations, instants[at] ?? 0), options, stepsMax).run();
  let low = 0;
  let high = instants.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (check(middle).kind === 'violated') high = middle;
    else low = middle + 1;
  }
  const atMs = instants[low] ?? 0;
  const before = low === 0 ? undefined : check(low - 1);
  const culprits = operations.filter(({ returnMs }) => returnMs === atMs).map(operationText);
  const earlier = prefixAt(operations, atMs).filter(({ returnMs }) => returnMs !== atMs);
  const shown = earlier.slice(-explainedMax).map(operationText);
  const possible = before?.kind === 'ok' ? `\n  one state before it: ${stateText(before.last)}` : '';
  return (
    `no order of the operations on ${key} explains what was told at ${atMs} ms:\n  ${culprits.join('\n  ')}` +
    `${possible}\n  after ${earlier.length} operations, the last of which were\n    ${shown.join('\n    ')}`
  );
};

/** How time may come in is the caller's to say: without options it may end a future at any moment. */
export const checkLinearizable = (
  history: readonly HistoryOperation[],
  options: LinearizabilityOptions = {},
): Verdict => {
  const { stepsMax = stepsMaxDefault, earlySlackMs = Infinity, lateSlackMs = Infinity } = options;
  const model = { earlySlackMs, lateSlackMs };
  const order = checkRevisions(history);
  if (order !== undefined) return { kind: 'violated', explanation: order };
  const keys = byKey(history);
  let undecided = 0;
  let explanation = '';
  for (const [key, operations] of keys) {
    const found = new Search(operations, model, stepsMax).run();
    if (found.kind === 'violated') {
      return { kind: 'violated', explanation: explain(key, operations, model, stepsMax) };
    }
    if (found.kind === 'undecided') {
      undecided += 1;
      explanation ||= `the search for ${key} (${operations.length} operations) was given up after ${stepsMax} steps`;
    }
  }
  return undecided === 0
    ? { kind: 'ok', keys: keys.size }
    : { kind: 'undecided', keys: keys.size, undecided, explanation };
};

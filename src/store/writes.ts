/** One write: all of its operations or none, each seeing what the ones before it did. */
import type { Change, Failure, Operation, OperationResult } from '../protocol/index.ts';
import type { FutureTable, KeyRecord, Slot } from './future-table.ts';
import type { Answer } from './remembered-answers.ts';
import type { QuotaCheck } from './usage.ts';
import { freshAt, operate, type Circumstances, type Outcome } from './transitions.ts';

interface Staged {
  readonly record: KeyRecord | undefined;
  slot: Slot;
  changed: boolean;
}

/**
 * `quota` undefined: the principal may have as much as it likes. Appends to `changes` what changed. A generation up to `generationFloor` may have been used for a key that is not
 * known any more. The revision of the answer is that of the changes, or `lastRevision`.
 */
export const write = (
  table: FutureTable,
  generationFloor: number,
  operations: readonly Operation[],
  at: Circumstances,
  lastRevision: number,
  changes: Change[],
  quota: QuotaCheck | undefined,
): Answer => {
  const only = operations[0];
  if (only !== undefined && operations.length === 1) {
    const record = table.find(only.key);
    const slot = record ?? absent(generationFloor);
    const outcome = operate(slot, only, at);
    if (outcome.kind === 'failed') return refused(outcome.failure, 0);
    // Before the commit, which changes the very record that `slot` may be.
    const results = [resultOf(slot, outcome, at)];
    const exceeded = outcome.kind === 'changed' && quota?.admit(only, slot, outcome.slot);
    if (exceeded) return refused(exceeded, 0);
    if (outcome.kind === 'unchanged') return { kind: 'written', result: { revision: lastRevision, results } };
    commit(table, only.key, record, outcome.slot, at, changes);
    return { kind: 'written', result: { revision: at.revision, results } };
  }
  return writeBatch(table, generationFloor, operations, at, lastRevision, changes, quota);
};

const writeBatch = (
  table: FutureTable,
  generationFloor: number,
  operations: readonly Operation[],
  at: Circumstances,
  lastRevision: number,
  changes: Change[],
  quota: QuotaCheck | undefined,
): Answer => {
  const staged = new Map<string, Staged>();
  const results: OperationResult[] = [];
  let revision = lastRevision;
  for (const [number, operation] of operations.entries()) {
    const { key } = operation;
    let stage = staged.get(key);
    if (stage === undefined) {
      const record = table.find(key);
      stage = { record, slot: record ?? absent(generationFloor), changed: false };
      staged.set(key, stage);
    }
    const outcome = operate(stage.slot, operation, at);
    if (outcome.kind === 'failed') return refused(outcome.failure, number);
    results.push(resultOf(stage.slot, outcome, at));
    if (outcome.kind === 'changed') {
      const exceeded = quota?.admit(operation, stage.slot, outcome.slot);
      if (exceeded) return refused(exceeded, number);
      stage.slot = outcome.slot;
      stage.changed = true;
      revision = at.revision;
    }
  }
  for (const [key, stage] of staged)
    if (stage.changed) commit(table, key, stage.record, stage.slot, at, changes);
  return { kind: 'written', result: { revision, results } };
};

const absent = (generationFloor: number): Slot => ({
  future: undefined,
  lastGeneration: generationFloor,
  createdRevision: 0,
  tied: undefined,
  payer: undefined,
});

const refused = ({ code, message }: Failure, operation: number): Answer => ({
  kind: 'failed',
  failure: { code, message, operation },
});

const commit = (
  table: FutureTable,
  key: string,
  record: KeyRecord | undefined,
  slot: Slot,
  at: Circumstances,
  changes: Change[],
): void => {
  table.put(key, record, slot, at.revision, at.nowMs);
  const { revision } = at;
  changes.push(
    slot.future === undefined
      ? { kind: 'deleted', revision, key }
      : { kind: 'future', revision, key, future: slot.future },
  );
};

const resultOf = (before: Slot, outcome: Outcome, at: Circumstances): OperationResult => {
  const after = outcome.kind === 'changed' ? outcome.slot : before;
  // Of a deletion: the state that was deleted.
  const future = after.future ?? before.future;
  return {
    generation: after.lastGeneration,
    state: future === undefined ? 'pending' : freshAt(future, at.nowMs).state,
    revision: outcome.kind === 'changed' ? at.revision : (future?.revision ?? 0),
    unchanged: outcome.kind === 'unchanged',
  };
};

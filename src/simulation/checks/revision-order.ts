/**
 * What revisions say across keys. They are numbers of the whole cluster, so they order operations on different keys:
 * this is what a check key by key cannot see.
 */
import type { HistoryOperation, HistoryWrite, HistoryWritten } from './history.ts';

interface Change {
  readonly source: HistoryOperation;
  readonly key: string;
  readonly revision: number;
}

const writtenOf = (operation: HistoryOperation): readonly HistoryWritten[] => {
  if (operation.kind === 'get' || operation.output === 'unknown') return [];
  if (operation.kind === 'batch') return 'error' in operation.output ? [] : operation.output;
  return 'error' in operation.output ? [] : [operation.output];
};

const writesOf = (operation: HistoryOperation): readonly HistoryWrite[] => {
  if (operation.kind === 'get') return [];
  return operation.kind === 'batch' ? operation.input : [operation.input];
};

const keyOf = (operation: HistoryOperation, at: number): string =>
  operation.kind === 'batch' ? (operation.input[at]?.key ?? '?') : operation.key;

/** What happened anew; the writes that found it to be so already have the revision of another. */
const changesOf = (operation: HistoryOperation): Change[] =>
  writtenOf(operation)
    .map((written, at) => ({ written, key: keyOf(operation, at) }))
    .filter(({ written }) => !written.unchanged)
    .map(({ written, key }) => ({ source: operation, key, revision: written.revision }));

const nameOf = ({ source, key }: Change): string => `${source.kind} of ${key} by client ${source.client}`;

const checkUnique = (history: readonly HistoryOperation[]): string | undefined => {
  const owners = new Map<number, Change>();
  for (const operation of history) {
    const changes = changesOf(operation);
    const [first] = changes;
    if (first === undefined) continue;
    const other = changes.find(({ revision }) => revision !== first.revision);
    if (other !== undefined) {
      return `a batch of client ${operation.client} changed ${first.key} at ${first.revision} and ${other.key} at ${other.revision}`;
    }
    const owner = owners.get(first.revision);
    if (owner !== undefined)
      return `revision ${first.revision} is that of the ${nameOf(owner)} and of the ${nameOf(first)}`;
    owners.set(first.revision, first);
  }
  return undefined;
};

interface Observation {
  readonly atMs: number;
  readonly revision: number;
  readonly what: string;
}

/** Revisions that were there at the latest when this was told. */
const observations = (history: readonly HistoryOperation[]): Observation[] => {
  const seen: Observation[] = [];
  for (const operation of history) {
    const atMs = operation.returnMs;
    if (atMs === undefined) continue;
    if (operation.kind === 'get') {
      const { output } = operation;
      if (output === 'unknown' || 'error' in output || output.state === 'absent') continue;
      seen.push({
        atMs,
        revision: output.revision,
        what: `get of ${operation.key} by client ${operation.client}`,
      });
      continue;
    }
    for (const [at, { revision }] of writtenOf(operation).entries()) {
      seen.push({
        atMs,
        revision,
        what: `${operation.kind} of ${keyOf(operation, at)} by client ${operation.client}`,
      });
    }
  }
  return seen.sort((a, b) => a.atMs - b.atMs);
};

const checkOrder = (history: readonly HistoryOperation[]): string | undefined => {
  const seen = observations(history);
  const changes = history.flatMap(changesOf).sort((a, b) => a.source.callMs - b.source.callMs);
  let at = 0;
  let greatest: Observation | undefined;
  for (const change of changes) {
    for (let next = seen[at]; next !== undefined && next.atMs < change.source.callMs; next = seen[at]) {
      if (greatest === undefined || next.revision > greatest.revision) greatest = next;
      at += 1;
    }
    if (greatest !== undefined && greatest.revision >= change.revision) {
      return (
        `the ${nameOf(change)}, called at ${change.source.callMs}, got revision ${change.revision}; ` +
        `but ${greatest.revision} was told before, at ${greatest.atMs}, to the ${greatest.what}`
      );
    }
  }
  return undefined;
};

/** Values that only one batch writes, and nobody else: who shows them shows that batch. */
const valuesOfBatches = (history: readonly HistoryOperation[]): Map<string, HistoryOperation> => {
  const writers = new Map<string, HistoryOperation | undefined>();
  for (const operation of history) {
    for (const { key, value } of writesOf(operation)) {
      if (value === undefined) continue;
      const id = JSON.stringify([key, value]);
      writers.set(id, operation.kind === 'batch' && !writers.has(id) ? operation : undefined);
    }
  }
  const batches = new Map<string, HistoryOperation>();
  for (const [id, batch] of writers) if (batch !== undefined) batches.set(id, batch);
  return batches;
};

/** Who has seen one value of a batch must see the others' keys as they were then, or later. */
const checkBatches = (history: readonly HistoryOperation[]): string | undefined => {
  const values = valuesOfBatches(history);
  if (values.size === 0) return undefined;
  // What is kept fresh has later revisions with the same value.
  const touched = new Set<string>();
  for (const operation of history) {
    for (const { kind, key } of writesOf(operation)) if (kind === 'touch') touched.add(key);
  }
  const gets = history
    .filter((operation) => operation.kind === 'get')
    .sort((a, b) => (a.returnMs ?? Infinity) - (b.returnMs ?? Infinity));
  const first = new Map<HistoryOperation, { revision: number; seenAtMs: number; key: string }>();
  for (const { key, output, returnMs } of gets) {
    if (output === 'unknown' || 'error' in output || output.state !== 'resolved' || touched.has(key))
      continue;
    const batch = values.get(JSON.stringify([key, output.value]));
    if (batch === undefined || first.has(batch)) continue;
    first.set(batch, { revision: output.revision, seenAtMs: returnMs ?? Infinity, key });
  }
  for (const [batch, { revision, seenAtMs, key }] of first) {
    // A declaration may have found the key declared.
    const settled = new Set(
      writesOf(batch)
        .filter(({ kind }) => kind === 'resolve')
        .map((part) => part.key),
    );
    for (const get of gets) {
      if (get.callMs <= seenAtMs || !settled.has(get.key)) continue;
      const { output } = get;
      if (output === 'unknown' || 'error' in output || output.state === 'absent') continue;
      if (output.revision < revision) {
        return (
          `a batch of client ${batch.client} was seen at ${key} with revision ${revision}; ` +
          `${get.key}, read after that at ${get.callMs}, was still at ${output.revision}`
        );
      }
    }
  }
  return undefined;
};

/** What is wrong with them; undefined: nothing. */
export const checkRevisions = (history: readonly HistoryOperation[]): string | undefined =>
  checkUnique(history) ?? checkOrder(history) ?? checkBatches(history);

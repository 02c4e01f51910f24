/** Random histories of writes that raft could make, and what a disk holds after each of them. */
import * as fc from 'fast-check';
import { asLogIndex } from '../../src/raft/index.ts';
import type { SnapshotPart, Storage, WriteBatch } from '../../src/storage/index.ts';
import type { Dump, PlainEntry } from './support.ts';
import { batch, entry, hardState, point, position, put, snapshotParts } from './support.ts';

export interface Turn {
  readonly appended: number;
  readonly newTerm: boolean;
  /** Of the unapplied entries; 0: none. */
  readonly truncated: number;
  readonly applied: number;
  readonly writes: readonly (readonly [key: string, text: string | undefined])[];
  readonly compacted: number;
  readonly snapshot: boolean;
  readonly sync: boolean;
}

const small = fc.nat({ max: 4 });

export const turns: fc.Arbitrary<Turn[]> = fc.array(
  fc.record({
    appended: small,
    newTerm: fc.boolean(),
    truncated: fc.constantFrom(0, 0, 1, 2),
    applied: small,
    writes: fc.array(
      fc.tuple(
        fc.constantFrom('a', 'b', 'c/d', 'e'),
        fc.option(fc.string({ maxLength: 9 }), { nil: undefined }),
      ),
      { maxLength: 4 },
    ),
    compacted: fc.constantFrom(0, 0, 0, 3),
    snapshot: fc.constantFrom(false, false, false, false, true),
    sync: fc.boolean(),
  }),
  { minLength: 1, maxLength: 14 },
);

export interface Step {
  readonly batch: WriteBatch;
  /** To be staged before the write. */
  readonly parts: readonly SnapshotPart[];
  /** After it. */
  readonly after: Dump;
}

export const emptyDump: Dump = {
  hardState: undefined,
  snapshot: undefined,
  entries: [],
  applied: { index: 0, term: 0 },
  state: [],
};

const sorted = (state: ReadonlyMap<string, string>): Dump['state'] =>
  [...state].sort(([one], [other]) => (one < other ? -1 : 1));

const plain = (index: number, term: number): PlainEntry => ({
  index,
  term,
  kind: 'commands',
  text: `entry ${index}`,
});

interface Model {
  term: number;
  base: { index: number; term: number } | undefined;
  log: PlainEntry[];
  applied: { index: number; term: number };
  state: Map<string, string>;
}

const modelDump = (model: Model, commit: number): Dump => ({
  hardState: { term: model.term, vote: undefined, commit },
  snapshot: model.base,
  entries: [...model.log],
  applied: model.applied,
  state: sorted(model.state),
});

/** A snapshot is installed; it is two entries ahead of all that is here. */
const install = async (model: Model): Promise<Step> => {
  const index = (model.base?.index ?? 0) + model.log.length + 2;
  model.state = new Map([['installed', String(index)]]);
  model.log = [];
  model.base = { index, term: model.term };
  model.applied = model.base;
  return {
    batch: batch({ activate: point(index, model.term), hardState: hardState(model.term, index) }),
    parts: await snapshotParts(index, model.term, model.state),
    after: modelDump(model, index),
  };
};

const turnOf = (model: Model, turn: Turn): Step => {
  const base = model.base?.index ?? 0;
  const unapplied = base + model.log.length - model.applied.index;
  const truncated = Math.min(turn.truncated, unapplied);
  const truncateFrom = base + model.log.length - truncated + 1;
  model.log.splice(model.log.length - truncated, truncated);
  const first = base + model.log.length + 1;
  for (let offset = 0; offset < turn.appended; offset += 1) model.log.push(plain(first + offset, model.term));
  const last = base + model.log.length;
  const appliedIndex = Math.min(last, model.applied.index + turn.applied);
  const moved = appliedIndex > model.applied.index;
  if (moved) {
    model.applied = { index: appliedIndex, term: model.log[appliedIndex - base - 1]?.term ?? 0 };
    for (const [key, text] of turn.writes) {
      if (text === undefined) model.state.delete(key);
      else model.state.set(key, text);
    }
  }
  const compactTo = Math.min(base + turn.compacted, appliedIndex);
  if (compactTo > base) {
    model.base = { index: compactTo, term: model.log[compactTo - base - 1]?.term ?? 0 };
    model.log.splice(0, compactTo - base);
  }
  const appended = Array.from({ length: turn.appended }, (_, offset) => entry(first + offset, model.term));
  const stateWrites = turn.writes.map(([key, text]) =>
    text === undefined ? { key, value: undefined } : put(key, text),
  );
  return {
    batch: batch({
      hardState: hardState(model.term, appliedIndex),
      entries: appended,
      sync: turn.sync,
      ...(truncated > 0 ? { truncateFrom: asLogIndex(truncateFrom) } : {}),
      ...(moved ? { stateWrites, applied: position(model.applied.index, model.applied.term) } : {}),
      ...(compactTo > base ? { compactTo: point(compactTo, model.base?.term) } : {}),
    }),
    parts: [],
    after: modelDump(model, appliedIndex),
  };
};

export const historyOf = async (all: readonly Turn[]): Promise<Step[]> => {
  const model: Model = {
    term: 1,
    base: undefined,
    log: [],
    applied: { index: 0, term: 0 },
    state: new Map(),
  };
  const steps: Step[] = [];
  for (const turn of all) {
    if (turn.newTerm) model.term += 1;
    steps.push(turn.snapshot ? await install(model) : turnOf(model, turn));
  }
  return steps;
};

/** Stages the snapshot, if the step has one, then writes. */
export const perform = async (storage: Storage, step: Step): Promise<void> => {
  if (step.batch.activate !== undefined) {
    const staging = await storage.stageSnapshot(step.batch.activate);
    for (const part of step.parts) await staging.add(part);
  }
  await storage.write(step.batch);
};

/**
 * What peers have told, as this server's own disk remembers it. Two records for each peer: what its latest run has told
 * changes with nearly every message, and is small; who it is, with a lineage that may be long, changes with its starts.
 */
import * as v from 'valibot';
import type { PeerLineage } from '../peers/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import type { PeerWrite } from '../storage/index.ts';

/** What a disk must still have, because a message of its server has said so. */
export interface Told {
  term: number;
  /** Acknowledged in that term: entries of one leadership are not taken back while it lasts. */
  indexInTerm: number;
  /** Applied there, so committed and never taken back at all. */
  applied: number;
}

/** What is known of a peer by its own word. */
export interface RememberedPeer {
  readonly run: number;
  readonly diskId: Uint8Array;
  readonly lineage?: PeerLineage;
  /** By runs before this one. */
  readonly before: Told;
  readonly now: Told;
  /** Each run that has told something is one of this disk, by its lineage. */
  readonly isOneLine: boolean;
}

const number = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const toldForm = v.strictObject({ term: number, indexInTerm: number, applied: number });
const diskForm = v.strictObject({
  run: number,
  diskId: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  lineage: v.exactOptional(v.strictObject({ since: number, runs: v.array(number) })),
  before: toldForm,
  isOneLine: v.boolean(),
});

const diskKey = (member: number): string => `${member}/disk`;
const toldKey = (member: number): string => `${member}/told`;

const asBytes = (content: unknown): Uint8Array => Buffer.from(JSON.stringify(content));

/** Of what the present run has told; the other record is to be there, or is written with it. */
export const toldWrite = (member: number, { now }: RememberedPeer): PeerWrite => ({
  key: toldKey(member),
  value: asBytes(now),
});

export const diskWrite = (
  member: number,
  { run, diskId, lineage, before, isOneLine }: RememberedPeer,
): PeerWrite => ({
  key: diskKey(member),
  value: asBytes({ run, diskId: Buffer.from(diskId).toString('hex'), lineage, before, isOneLine }),
});

export const removals = (member: number): readonly PeerWrite[] => [
  { key: diskKey(member), value: undefined },
  { key: toldKey(member), value: undefined },
];

const decoded = <Value>(key: string, bytes: Uint8Array, form: v.GenericSchema<unknown, Value>): Value => {
  try {
    return v.parse(form, JSON.parse(Buffer.from(bytes).toString()));
  } catch (cause) {
    throw new FuturestoreError(
      'DATA_DAMAGED',
      `The record "${key}" of what a peer has told makes no sense: replace this member, the others have its data`,
      { cause },
    );
  }
};

/** By member. Throws DATA_DAMAGED for what this cannot have written; keys that it does not know are left alone. */
export const decodePeerRecords = (
  records: ReadonlyMap<string, Uint8Array>,
): ReadonlyMap<number, RememberedPeer> => {
  const peers = new Map<number, RememberedPeer>();
  for (const [key, bytes] of records) {
    const member = Number(/^([1-9]\d*)\/disk$/.exec(key)?.[1]);
    if (!Number.isSafeInteger(member)) continue;
    const { diskId, ...disk } = decoded(key, bytes, diskForm);
    const told = toldKey(member);
    // Both are written together, at first.
    const now = decoded(told, records.get(told) ?? new Uint8Array(), toldForm);
    peers.set(member, { ...disk, diskId: Buffer.from(diskId, 'hex'), now });
  }
  return peers;
};

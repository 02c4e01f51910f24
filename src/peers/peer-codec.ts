/**
 * Frames between servers as bytes and back. Strict: what a server of this version would not send is refused with
 * PROTOCOL_ERROR. Payloads are views of the bytes given to the decoder, which must be the frame's own (FrameAssembler
 * makes them so).
 */
import assert from 'node:assert/strict';
import { Writer } from 'protobufjs/minimal.js';
import { FuturestoreError, isPeersAddress, messages, StrictReader } from '../protocol/index.ts';
import { asMemberId, asTerm } from '../raft/index.ts';
import type { MemberId, Message, SnapshotPoint } from '../raft/index.ts';
import { snapshotPointFromMessage, snapshotPointToMessage } from '../storage/index.ts';
import { frameBytesMax, lengthBytes } from './framing.ts';
import { orderFromMessage, orderToMessage, outcomeFromMessage, outcomeToMessage } from './agents-messages.ts';
import { asWhole, raftFromMessage, raftToMessage } from './raft-messages.ts';
import type { PeerBatch, PeerLineage, PeerStanding, PeerStatus, SnapshotStreamPart } from './types.ts';

export const protocolError = (message: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError('PROTOCOL_ERROR', message, cause === undefined ? undefined : { cause });

export const isProtocolError = (error: unknown): error is FuturestoreError =>
  error instanceof FuturestoreError && error.code === 'PROTOCOL_ERROR';

/**
 * Of the protocol between servers: what this server says first, and the oldest that it still understands. Frames of
 * version 4 are those of version 3; it says that the log may hold keys for TLS session tickets. Those of version 5 are the
 * same; it says that policies may limit keys. So are those of version 6; it says that quotas may be strict. So are those of
 * version 7; it says that realms may take names from DNS names.
 */
export const peerProtocolVersion = 7;
export const peerProtocolVersionMin = 1;
/**
 * The versions from which on a hello says where its server stands and is reached, a peer takes requests to hand
 * leadership over, a hello tells the runs of the disk and its refusal that the disk is outdated, and a peer takes orders
 * about its agents and says whether it takes any.
 */
export const standingSince = 2;
export const transferSince = 2;
export const lineageSince = 3;
export const agentsOrdersSince = 5;

/**
 * Runs in a hello; with eight bytes each they leave room for the rest of it. Enough for a server that is started again each
 * second for an hour without reaching anybody.
 */
export const lineageMax = 4096;

/** Messages, texts and byte strings in a frame of ours; an empty one takes 2 bytes on the wire and a hundred in memory. */
const partsPerFrameMax = 500_000;

export interface PeerHello {
  readonly clusterId: string;
  readonly from: MemberId;
  readonly to: MemberId;
  readonly run: number;
  readonly diskId: Uint8Array;
  readonly version: number;
  /** A link of its own for a snapshot. */
  readonly bulk: boolean;
  /** Exactly in version 2 and later, as is `address`. */
  readonly standing?: PeerStanding;
  /** Where peers reach the sender: 'host:port'. */
  readonly address?: string;
  /** Exactly in version 3 and later. */
  readonly lineage?: PeerLineage;
}

export type PeerFrame =
  | { readonly kind: 'hello'; readonly hello: PeerHello }
  | { readonly kind: 'batch'; readonly batch: PeerBatch }
  | { readonly kind: 'chunk'; readonly stream: SnapshotStreamPart }
  | { readonly kind: 'snapshot_refused'; readonly point: SnapshotPoint; readonly reason: string }
  | {
      readonly kind: 'hello_refused';
      readonly reason: string;
      readonly removed: boolean;
      readonly outdated?: true;
    }
  /**
   * No bytes at all. From a listener: the hello, or the whole snapshot, has been taken, or the answer to one. From a
   * dialer: are you there?
   */
  | { readonly kind: 'empty' };

type FrameProperties = messages.peer.PeerFrame.$Properties;
type Received = messages.peer.PeerFrame;

const diskIdBytes = 16;
const reasonLengthMax = 1000;
const textLengthMax = 1000;

const batchToMessage = ({
  raft,
  forward,
  forwardTerm,
  leaderTimeMs,
  status,
  transferTo,
  agentsOrder,
  agentsOutcome,
}: PeerBatch): FrameProperties => ({
  raft: raft.map(raftToMessage),
  forward: [...forward],
  forwardTerm: asWhole(forwardTerm),
  ...(leaderTimeMs === undefined ? {} : { leaderTimeMs: asWhole(leaderTimeMs) }),
  ...(status === undefined ? {} : { status: { ...status } }),
  ...(transferTo === undefined ? {} : { transferTo: asMemberId(transferTo) }),
  ...(agentsOrder === undefined ? {} : { agentsOrder: orderToMessage(agentsOrder) }),
  ...(agentsOutcome === undefined ? {} : { agentsOutcome: outcomeToMessage(agentsOutcome) }),
});

const helloToMessage = ({
  standing,
  address,
  lineage,
  ...hello
}: PeerHello): messages.peer.PeerHello.$Properties => {
  const has = (what: unknown): boolean => what !== undefined;
  assert(
    has(standing) === hello.version >= standingSince && has(address) === has(standing),
    `a hello of version ${hello.version} was to be sent ${has(standing) ? 'with' : 'without'} a standing and ` +
      `${has(address) ? 'with' : 'without'} an address`,
  );
  assert(
    has(lineage) === hello.version >= lineageSince && (lineage?.runs.length ?? 0) <= lineageMax,
    `a hello of version ${hello.version} was to be sent with a lineage of ${lineage?.runs.length ?? 'no'} runs`,
  );
  if (standing === undefined || address === undefined) return hello;
  const { term, lastIndex, founds = false } = standing;
  const stands = { ...hello, term: asWhole(term), lastIndex: asWhole(lastIndex), founds, address };
  if (lineage === undefined) return stands;
  return { ...stands, lineage: lineage.runs.map(asWhole), lineageSince: asWhole(lineage.since) };
};

const frameToMessage = (frame: PeerFrame): FrameProperties => {
  switch (frame.kind) {
    case 'hello':
      return { hello: helloToMessage(frame.hello) };
    case 'batch':
      return batchToMessage(frame.batch);
    case 'chunk': {
      const { term, point, part } = frame.stream;
      return { chunk: { term, point: snapshotPointToMessage(point), ...part } };
    }
    case 'snapshot_refused': {
      const reason = frame.reason.slice(0, reasonLengthMax);
      return { refused: { point: snapshotPointToMessage(frame.point), reason } };
    }
    case 'hello_refused': {
      const { reason, removed, outdated = false } = frame;
      return { helloRefused: { reason: reason.slice(0, reasonLengthMax), removed, outdated } };
    }
    case 'empty':
      return {};
    default: {
      const unknown: never = frame;
      throw new TypeError(`unknown frame ${JSON.stringify(unknown)}`);
    }
  }
};

/** With its length in front: ready for the stream. */
export const encodeFrame = (frame: PeerFrame): Buffer => {
  const writer = messages.peer.PeerFrame.encode(frameToMessage(frame), Writer.create().fixed32(0));
  const bytes = writer.finish();
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = buffer.length - lengthBytes;
  assert(
    length <= frameBytesMax,
    `a frame of ${length} bytes was to be sent, at most ${frameBytesMax} are accepted`,
  );
  buffer.writeUInt32BE(length, 0);
  return buffer;
};

/** Beyond it a batch is sent as several frames, so that none gets near the limit. */
const splitBytes = 2 * 1024 * 1024;
/** What an entry or message takes beside its payload, generously. */
const overheadBytes = 64;

const sizeOf = (message: Message): number => {
  let size = overheadBytes;
  if (message.kind === 'append_request')
    for (const { payload } of message.entries) size += payload.length + overheadBytes;
  return size;
};

/** The frames that carry a batch, in order: nearly always one. */
export const encodeBatch = (batch: PeerBatch): readonly Buffer[] => {
  let size = 0;
  for (const message of batch.raft) size += sizeOf(message);
  for (const command of batch.forward) size += command.length + overheadBytes;
  if (size <= splitBytes) return [encodeFrame({ kind: 'batch', batch })];

  const frames: Buffer[] = [];
  const { forwardTerm, raft, forward, ...once } = batch;
  let part: { raft: Message[]; forward: Uint8Array[] } = { raft: [], forward: [] };
  let bytes = 0;
  const flush = (): void => {
    if (bytes === 0) return;
    const extras = frames.length === 0 ? once : {};
    frames.push(encodeFrame({ kind: 'batch', batch: { ...part, forwardTerm, ...extras } }));
    part = { raft: [], forward: [] };
    bytes = 0;
  };
  const reserve = (more: number): void => {
    if (bytes + more > splitBytes) flush();
    bytes += more;
  };
  for (const message of raft) {
    reserve(sizeOf(message));
    part.raft.push(message);
  }
  for (const command of forward) {
    reserve(command.length + overheadBytes);
    part.forward.push(command);
  }
  flush();
  return frames;
};

const text = (what: string, value: string | undefined, lengthMax = textLengthMax): string => {
  if (value === undefined) return '';
  if (value.length > lengthMax)
    throw new RangeError(`${what} has ${value.length} characters, at most ${lengthMax}`);
  return value;
};

const statusFromMessage = (message: messages.peer.PeerStatus.$Properties): PeerStatus => ({
  name: text('a name', message.name),
  role: text('a role', message.role),
  term: asWhole(message.term ?? 0),
  commitIndex: asWhole(message.commitIndex ?? 0),
  appliedIndex: asWhole(message.appliedIndex ?? 0),
  keys: asWhole(message.keys ?? 0),
  connections: asWhole(message.connections ?? 0),
  version: text('a version', message.version),
  ...(message.draining === true && { draining: true }),
});

/** A dialer of version 1 is not to be believed more than it can say. */
const standingFromMessage = (
  version: number,
  { term, lastIndex, founds = false, address = '' }: messages.peer.PeerHello.$Properties,
): Pick<PeerHello, 'standing' | 'address'> => {
  const standing = { term: asWhole(term ?? 0), lastIndex: asWhole(lastIndex ?? 0) };
  if (version >= standingSince) {
    if (!isPeersAddress(address)) throw new RangeError('the address in the hello is not host:port');
    return { standing: founds ? { ...standing, founds } : standing, address };
  }
  if (standing.term + standing.lastIndex > 0 || founds || address !== '')
    throw new RangeError(`a hello of version ${version} has a standing or an address`);
  return {};
};

/** The same of versions 1 and 2. */
const lineageFromMessage = (
  version: number,
  { lineage, lineageSince: since }: messages.peer.PeerHello.$Properties,
): Pick<PeerHello, 'lineage'> => {
  const runs = (lineage ?? []).map(asWhole);
  if (version >= lineageSince) {
    if (runs.length > lineageMax)
      throw new RangeError(`the hello has ${runs.length} runs, at most ${lineageMax}`);
    return { lineage: { since: asWhole(since ?? 0), runs } };
  }
  if (runs.length > 0 || (since ?? 0) !== 0)
    throw new RangeError(`a hello of version ${version} has a lineage`);
  return {};
};

const helloFromMessage = (message: messages.peer.PeerHello.$Properties): PeerHello => {
  const diskId = message.diskId ?? new Uint8Array(0);
  if (diskId.length !== diskIdBytes) throw new RangeError(`the disk id has ${diskId.length} bytes`);
  const version = asWhole(message.version ?? 0);
  return {
    clusterId: text('the cluster id', message.clusterId),
    from: asMemberId(message.from ?? 0),
    to: asMemberId(message.to ?? 0),
    run: asWhole(message.run ?? 0),
    diskId: new Uint8Array(diskId),
    version,
    bulk: message.bulk ?? false,
    ...standingFromMessage(version, message),
    ...lineageFromMessage(version, message),
  };
};

const chunkFromMessage = (message: messages.peer.SnapshotChunk.$Properties): SnapshotStreamPart => ({
  term: asTerm(message.term ?? 0),
  point: snapshotPointFromMessage(message.point ?? {}),
  part: {
    number: asWhole(message.number ?? 0),
    records: message.records ?? new Uint8Array(0),
    checksum: asWhole(message.checksum ?? 0),
    last: message.last ?? false,
    recordsTotal: asWhole(message.recordsTotal ?? 0),
  },
});

const hasBatch = ({
  raft,
  forward,
  forwardTerm,
  status,
  leaderTimeMs,
  transferTo,
  agentsOrder,
  agentsOutcome,
}: Received): boolean =>
  (raft?.length ?? 0) > 0 ||
  (forward?.length ?? 0) > 0 ||
  (forwardTerm ?? 0) !== 0 ||
  (leaderTimeMs ?? 0) !== 0 ||
  (transferTo ?? 0) !== 0 ||
  (status !== undefined && status !== null) ||
  (agentsOrder !== undefined && agentsOrder !== null) ||
  (agentsOutcome !== undefined && agentsOutcome !== null);

const batchFromMessage = ({
  raft,
  forward,
  forwardTerm,
  status,
  leaderTimeMs,
  transferTo,
  agentsOrder,
  agentsOutcome,
}: Received): PeerBatch => ({
  raft: (raft ?? []).map(raftFromMessage),
  forward: forward ?? [],
  forwardTerm: asWhole(forwardTerm ?? 0),
  ...(leaderTimeMs ? { leaderTimeMs: asWhole(leaderTimeMs) } : {}),
  ...(status ? { status: statusFromMessage(status) } : {}),
  ...(transferTo ? { transferTo: asMemberId(transferTo) } : {}),
  ...(agentsOrder ? { agentsOrder: orderFromMessage(agentsOrder) } : {}),
  ...(agentsOutcome ? { agentsOutcome: outcomeFromMessage(agentsOutcome) } : {}),
});

const frameFromMessage = (message: Received): PeerFrame => {
  const { hello, chunk, refused, helloRefused } = message;
  const found: PeerFrame[] = [];
  if (hello) found.push({ kind: 'hello', hello: helloFromMessage(hello) });
  if (hasBatch(message)) found.push({ kind: 'batch', batch: batchFromMessage(message) });
  if (chunk) found.push({ kind: 'chunk', stream: chunkFromMessage(chunk) });
  if (refused) {
    const reason = text('a reason', refused.reason);
    found.push({ kind: 'snapshot_refused', point: snapshotPointFromMessage(refused.point ?? {}), reason });
  }
  if (helloRefused) {
    const reason = text('a reason', helloRefused.reason);
    const removed = helloRefused.removed ?? false;
    found.push({ kind: 'hello_refused', reason, removed, ...(helloRefused.outdated && { outdated: true }) });
  }
  const [frame, another] = found;
  if (frame !== undefined && another !== undefined)
    throw new RangeError(`it is both ${frame.kind} and ${another.kind}`);
  return frame ?? { kind: 'empty' };
};

/** `bytes`: without the length. Throws PROTOCOL_ERROR and nothing else. */
export const decodeFrame = (bytes: Uint8Array): PeerFrame => {
  try {
    const reader = new StrictReader(bytes, partsPerFrameMax);
    const message = messages.peer.PeerFrame.decode(reader.reader);
    const { unknownField } = reader;
    if (unknownField !== undefined) throw protocolError(`it has an unknown field, ${unknownField}`);
    return frameFromMessage(message);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw protocolError(`A frame of ${bytes.length} bytes from a peer is not valid: ${reason}.`, error);
  }
};

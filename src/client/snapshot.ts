/** The reading of a snapshot: one request for each part, and what must hold from one part to the next. */
import { crc32 } from 'node:zlib';
import { FuturestoreError } from '../protocol/index.ts';
import type { AnswerBody, SnapshotReadPart } from '../protocol/index.ts';
import { unexpectedAnswer } from './requests.ts';
import type { Content } from './requests.ts';

type SnapshotContent = Extract<Content, { kind: 'snapshot_read' }>;

export const snapshotPartGiven = (body: AnswerBody): SnapshotReadPart => {
  if (body.kind !== 'snapshot_part') throw unexpectedAnswer(body, 'snapshot_part');
  return body.part;
};

/** What the whole snapshot is of. */
const identityOf = ({ snapshot, clusterId, epoch, revision, index, term }: SnapshotReadPart): string =>
  JSON.stringify([snapshot, clusterId, epoch, revision, index, term]);

/** Each part is asked for when the one before has been taken. */
export async function* readSnapshotParts(
  ask: (content: SnapshotContent) => Promise<SnapshotReadPart>,
): AsyncGenerator<SnapshotReadPart, void, undefined> {
  let content: SnapshotContent = { kind: 'snapshot_read', part: 0 };
  let identity: string | undefined;
  for (;;) {
    const part = await ask(content).catch((error: unknown) => {
      throw content.part > 0 ? lostSnapshot(error) : error;
    });
    identity ??= identityOf(part);
    checkPart(part, content.part, identity);
    yield part;
    if (part.last) return;
    content = { kind: 'snapshot_read', snapshot: part.snapshot, part: content.part + 1 };
  }
}

/** The server that has it open is not the one that was asked, or has forgotten it: with a new one all may be well. */
function lostSnapshot(error: unknown): unknown {
  if (!(error instanceof FuturestoreError) || error.code !== 'INVALID_ARGUMENT') return error;
  return new FuturestoreError('UNAVAILABLE', `the snapshot cannot be read on: ${error.message}`, {
    cause: error,
  });
}

function checkPart(part: SnapshotReadPart, expected: number, identity: string): void {
  if (part.part !== expected || identityOf(part) !== identity) {
    throw new FuturestoreError(
      'PROTOCOL_ERROR',
      `the server sent part ${part.part} of snapshot ${part.snapshot} where part ${expected} of the one begun was expected`,
    );
  }
  if (crc32(part.records) !== part.checksum) {
    throw new FuturestoreError(
      'DATA_DAMAGED',
      `part ${part.part} of the snapshot came with a wrong checksum: read the snapshot again; if it happens again, from another server`,
    );
  }
}

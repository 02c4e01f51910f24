/**
 * About how many bytes an answer becomes: above the truth for protobuf, so that frames can be filled without encoding
 * anything twice. JSON frames may become a third larger (base64).
 */
import type { AnswerBody, Future, RevocationRecord } from '../protocol/index.ts';

/** Tags, lengths and numbers: ten bytes for each of a message's few fields. */
const messageBytes = 96;

export const answerBytes = (body: AnswerBody): number => {
  switch (body.kind) {
    case 'failed':
      return messageBytes + body.failure.message.length * 3;
    case 'session_opened':
    case 'session_closed':
    case 'cancelled':
    case 'authenticated':
    case 'clock':
      return messageBytes;
    case 'written':
      return messageBytes + body.result.results.length * 40;
    case 'got':
      return messageBytes + (body.future === undefined ? 0 : futureBytes(body.future));
    case 'listed':
      return messageBytes + 512 + futuresBytes(body.futures);
    case 'awaited':
      return messageBytes + futuresBytes(body.futures);
    case 'subscribed':
      return messageBytes + body.position.clusterId.length;
    case 'status':
      return messageBytes + body.status.members.length * 1024;
    case 'members':
      return messageBytes + body.list.members.length * 1024;
    case 'member_changed':
    case 'leader_transferred':
    case 'drained':
      return messageBytes;
    case 'rebalanced':
      return messageBytes + body.rebalanced.servers.length * 256;
    case 'snapshot_part':
      return 2 * messageBytes + body.part.clusterId.length + body.part.records.length;
    case 'access_changed':
      return messageBytes;
    case 'access':
      return messageBytes + body.access.document.length + revocationsBytes(body.access.revocations);
    default:
      return body satisfies never;
  }
};

const revocationsBytes = (revocations: readonly RevocationRecord[]): number =>
  revocations.reduce((sum, { revocation }) => sum + messageBytes + JSON.stringify(revocation).length, 0);

const futuresBytes = (futures: readonly Future[]): number => {
  let sum = 0;
  for (const future of futures) sum += futureBytes(future);
  return sum;
};

const futureBytes = (future: Future): number => {
  const { value, rejection } = future;
  const text = future.key.length + future.contentType.length + future.producer.length;
  // Only the rejection's message may hold more than ASCII: at most three bytes for each UTF-16 unit.
  const rejectionBytes = rejection === undefined ? 0 : rejection.code.length + rejection.message.length * 3;
  return messageBytes + text + (value?.length ?? 0) + rejectionBytes;
};

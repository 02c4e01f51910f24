/** The subprotocol futurestore.v1.json: the same messages in protobuf's JSON mapping, for people and browsers. */
import {
  clientFrameToMessage,
  helloFromMessage,
  receiveRequest,
  RequestIds,
  requestsPerFrameMax,
} from './client-frames.ts';
import { FuturestoreError } from './errors.ts';
import type {
  FrameCodec,
  Hello,
  ReceivedClientFrame,
  RefusedRequest,
  Request,
  ServerFrame,
} from './frames.ts';
import { changeToMessage, failureToMessage, malformed, outgoing } from './future-messages.ts';
import { limits } from './futures.ts';
import { messageFromJson, messageToJson } from './json-mapping.ts';
import { parseJson } from './json-text.ts';
import type { JsonValue } from './json-text.ts';
import { isRequestId } from './request-checks.ts';
import {
  answerToMessage,
  assertNotEmpty,
  goawayToMessage,
  outgoingId,
  serverFrameFromMessage,
  welcomeToMessage,
} from './server-frames.ts';
import type { ServerFrameMessage } from './server-frames.ts';
import { partsPerFrameMax } from './strict-reader.ts';

/** The messages are nested seven deep, with the arrays between them; more is no message. */
const depthMax = 16;
const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function parseFrame(bytes: Uint8Array, valuesMax: number): JsonValue {
  try {
    return parseJson(strictText.decode(bytes), { depthMax, valuesMax });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new FuturestoreError('PROTOCOL_ERROR', `the frame is no valid JSON text: ${reason}`, {
      cause: error,
    });
  }
}

function readClientFrame(frame: JsonValue): ReceivedClientFrame {
  if (!(frame instanceof Map)) throw malformed('the frame', 'is no JSON object');
  const members: ReadonlyMap<string, JsonValue> = frame;
  for (const name of members.keys()) {
    if (name !== 'hello' && name !== 'requests')
      throw malformed('the frame', 'has a field that this version does not know');
  }
  const requests = readRequests(members.get('requests') ?? []);
  const hello = readHello(members.get('hello') ?? null);
  if (hello !== undefined) return { hello, requests };
  if (requests.length === 0) throw malformed('the frame', 'has nothing in it');
  return { requests };
}

function readHello(hello: JsonValue): Hello | undefined {
  return hello === null ? undefined : helloFromMessage(messageFromJson('Hello', hello, 'hello'));
}

function readRequests(received: JsonValue): readonly (Request | RefusedRequest)[] {
  if (!Array.isArray(received)) throw malformed('requests', 'is no JSON array');
  const values: readonly JsonValue[] = received;
  if (values.length > requestsPerFrameMax) {
    throw malformed(
      'the frame',
      `has more than ${requestsPerFrameMax} requests: send them in several frames`,
    );
  }
  const ids = new RequestIds();
  return values.map((value) => readRequest(value, ids));
}

function readRequest(value: JsonValue, ids: RequestIds): Request | RefusedRequest {
  const id = readId(value);
  ids.add(id);
  try {
    return receiveRequest(id, messageFromJson('Request', value, 'the request'));
  } catch (error) {
    if (!(error instanceof FuturestoreError)) throw error;
    return { id, refused: { code: 'PROTOCOL_ERROR', message: error.message } };
  }
}

/** 0 where there is none that can be answered to. */
function readId(value: JsonValue): number {
  const id: JsonValue | undefined = value instanceof Map ? value.get('id') : undefined;
  const number = typeof id === 'string' && /^[0-9]{1,16}$/.test(id) ? Number(id) : id;
  return typeof number === 'number' && isRequestId(number) ? number : 0;
}

function serverFrameToMessage(frame: ServerFrame): ServerFrameMessage {
  assertNotEmpty(frame);
  const { welcome, answers, pushes, goaway, revision, authExpiring } = frame;
  return {
    answers: answers.map(answerToMessage),
    pushes: pushes.map(({ subscription, changes, revision: upTo, caughtUp, ended }) => ({
      subscription: outgoingId(subscription),
      changes: changes.map(({ change }) => changeToMessage(change)),
      revision: outgoing(upTo),
      caughtUp,
      ...(ended === undefined ? undefined : { ended: failureToMessage(ended) }),
    })),
    ...(welcome === undefined ? undefined : { welcome: welcomeToMessage(welcome) }),
    ...(goaway === undefined ? undefined : { goaway: goawayToMessage(goaway) }),
    ...(revision === undefined ? undefined : { revision: outgoing(revision) }),
    ...(authExpiring === undefined
      ? undefined
      : { authExpiring: { remainingMs: outgoing(authExpiring.remainingMs) } }),
  };
}

const encodeText = (json: object): Uint8Array => Buffer.from(JSON.stringify(json));

/** Base64 makes values a third longer, so in this form the limit on frames leaves about 800 KiB for a value. */
export const jsonCodec: FrameCodec = {
  subprotocol: 'futurestore.v1.json',
  binary: false,
  encodeClientFrame(frame) {
    return encodeText(messageToJson('ClientFrame', clientFrameToMessage(frame)));
  },
  decodeClientFrame(bytes) {
    if (bytes.length > limits.frameBytesMax) {
      throw malformed('the frame', `has ${bytes.length} bytes: at most ${limits.frameBytesMax} are allowed`);
    }
    return readClientFrame(parseFrame(bytes, partsPerFrameMax));
  },
  encodeServerFrame(frame) {
    return encodeText(messageToJson('ServerFrame', serverFrameToMessage(frame)));
  },
  decodeServerFrame(bytes) {
    return serverFrameFromMessage(
      messageFromJson('ServerFrame', parseFrame(bytes, Number.POSITIVE_INFINITY), 'the frame'),
    );
  },
};

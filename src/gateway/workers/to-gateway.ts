/** What a server tells its gateways, as items of a message between threads. */
import { decodeChange } from '../../protocol/index.ts';
import type {
  AnswerBody,
  Change,
  Future,
  OperationResult,
  SharedChange,
  SnapshotReadPart,
} from '../../protocol/index.ts';
import type { GatewayEvent } from '../../server/index.ts';
import type { Item, Packer, Unpacker } from './packing.ts';

export const toGateway = {
  written: 0,
  got: 1,
  answer: 2,
  /** A change's encoding, before the first push that has it. */
  change: 3,
  push: 4,
  ended: 5,
  ticketKeys: 6,
  other: 7,
  admission: 8,
  share: 9,
  call: 10,
  tick: 11,
  replaced: 12,
  /** The server has taken a cancel: of its request, or of the subscription that it made, nothing more comes. */
  cancelled: 13,
} as const;

type Push = Extract<GatewayEvent, { readonly kind: 'push' }>;
type Body<Kind extends AnswerBody['kind']> = Extract<AnswerBody, { readonly kind: Kind }>;
type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

type WrittenItem = readonly [
  tag: number,
  connection: number,
  request: number,
  revision: number,
  ...results: (number | string | boolean)[],
];
type GotItem = readonly [
  tag: number,
  connection: number,
  request: number,
  revision: number,
  future: Future | null,
];
type AnswerItem = readonly [tag: number, connection: number, request: number, body: AnswerBody];
type PushItem = readonly [
  tag: number,
  connection: number,
  subscription: number,
  revision: number,
  caughtUp: boolean,
  bytes: number,
  /** By their order in the message. */
  changes: readonly number[],
];

const resultFields = 4;

/** A value is where its length stands. */
const packFuture = (packer: Packer, future: Future): object =>
  future.value === undefined ? future : { ...future, value: packer.bytes(future.value) };

const unpackFuture = (unpacker: Unpacker, future: Mutable<Future>): Future => {
  if (future.value !== undefined) future.value = unpacker.bytes(Number(future.value));
  return future;
};

const packBody = (packer: Packer, body: AnswerBody): object => {
  switch (body.kind) {
    case 'listed':
    case 'awaited':
      return { ...body, futures: body.futures.map((future) => packFuture(packer, future)) };
    case 'got':
      return body.future === undefined ? body : { ...body, future: packFuture(packer, body.future) };
    case 'snapshot_part':
      return { ...body, part: { ...body.part, records: packer.bytes(body.part.records) } };
    case 'access':
      return { ...body, access: { ...body.access, document: packer.bytes(body.access.document) } };
    case 'failed':
    case 'session_opened':
    case 'session_closed':
    case 'cancelled':
    case 'authenticated':
    case 'written':
    case 'clock':
    case 'subscribed':
    case 'status':
    case 'members':
    case 'member_changed':
    case 'leader_transferred':
    case 'access_changed':
    case 'drained':
    case 'rebalanced':
      return body;
    default:
      return body satisfies never;
  }
};

const unpackBody = (unpacker: Unpacker, body: AnswerBody): AnswerBody => {
  switch (body.kind) {
    case 'listed':
    case 'awaited':
      for (const future of body.futures) unpackFuture(unpacker, future);
      return body;
    case 'got':
      if (body.future !== undefined) unpackFuture(unpacker, body.future);
      return body;
    case 'snapshot_part': {
      const part = body.part as Mutable<SnapshotReadPart>;
      part.records = unpacker.bytes(Number(part.records));
      return body;
    }
    case 'access': {
      const access = body.access as Mutable<Body<'access'>['access']>;
      access.document = unpacker.bytes(Number(access.document));
      return body;
    }
    case 'failed':
    case 'session_opened':
    case 'session_closed':
    case 'cancelled':
    case 'authenticated':
    case 'written':
    case 'clock':
    case 'subscribed':
    case 'status':
    case 'members':
    case 'member_changed':
    case 'leader_transferred':
    case 'access_changed':
    case 'drained':
    case 'rebalanced':
      return body;
    default:
      return body satisfies never;
  }
};

/** Packs the events of one message: a change that many are sent crosses once. */
export class EventPacker {
  readonly #packer: Packer;
  readonly #places = new Map<SharedChange, number>();

  constructor(packer: Packer) {
    this.#packer = packer;
  }

  add(event: GatewayEvent): void {
    const packer = this.#packer;
    switch (event.kind) {
      case 'answer':
        this.#answer(event.connection, event.request, event.body);
        return;
      case 'push':
        this.#push(event);
        return;
      case 'ended':
        packer.add([toGateway.ended, event.connection, event.subscription, event.failure]);
        return;
      case 'ticket_keys':
        packer.add([toGateway.ticketKeys, packer.bytes(event.keys)]);
        return;
      case 'standing':
      case 'progress':
      case 'access':
      case 'sessions_opened':
        packer.add([toGateway.other, event]);
        return;
      default:
        event satisfies never;
    }
  }

  #answer(connection: number, request: number, body: AnswerBody): void {
    const packer = this.#packer;
    if (body.kind === 'written') {
      const item: (number | string | boolean)[] = [
        toGateway.written,
        connection,
        request,
        body.result.revision,
      ];
      for (const { generation, state, revision, unchanged } of body.result.results)
        item.push(generation, state, revision, unchanged);
      packer.add(item);
    } else if (body.kind === 'got') {
      const future = body.future === undefined ? null : packFuture(packer, body.future);
      packer.add([toGateway.got, connection, request, body.revision, future]);
    } else {
      packer.add([toGateway.answer, connection, request, packBody(packer, body)]);
    }
  }

  #push({ connection, subscription, revision, caughtUp, bytes, changes }: Push): void {
    const places = changes.map((shared) => this.#place(shared));
    this.#packer.add([toGateway.push, connection, subscription, revision, caughtUp, bytes, places]);
  }

  #place(shared: SharedChange): number {
    const known = this.#places.get(shared);
    if (known !== undefined) return known;
    const place = this.#places.size;
    this.#places.set(shared, place);
    this.#packer.add([toGateway.change, this.#packer.bytes(shared.encoded)]);
    return place;
  }
}

/** All that most frames need of a change is its encoding: what is in it is read where it is asked for (JSON). */
class EncodedChange implements SharedChange {
  readonly encoded: Uint8Array;
  #change: Change | undefined;

  constructor(encoded: Uint8Array) {
    this.encoded = encoded;
  }

  get change(): Change {
    return (this.#change ??= decodeChange(this.encoded));
  }
}

export class EventUnpacker {
  readonly #unpacker: Unpacker;
  readonly #changes: SharedChange[] = [];

  constructor(unpacker: Unpacker) {
    this.#unpacker = unpacker;
  }

  /** Undefined: there is no event in it (yet). */
  event(item: Item): GatewayEvent | undefined {
    switch (item[0]) {
      case toGateway.written:
        return unpackWritten(item as WrittenItem);
      case toGateway.got: {
        const [, connection, request, revision, packed] = item as GotItem;
        const future = packed === null ? undefined : unpackFuture(this.#unpacker, packed);
        return { kind: 'answer', connection, request, body: { kind: 'got', revision, future } };
      }
      case toGateway.answer: {
        const [, connection, request, body] = item as AnswerItem;
        return { kind: 'answer', connection, request, body: unpackBody(this.#unpacker, body) };
      }
      case toGateway.change:
        this.#changes.push(new EncodedChange(this.#unpacker.bytes(Number(item[1]))));
        return undefined;
      case toGateway.push:
        return this.#push(item as PushItem);
      case toGateway.ended: {
        const [, connection, subscription, failure] = item as readonly [number, number, number, never];
        return { kind: 'ended', connection, subscription, failure };
      }
      case toGateway.ticketKeys:
        return { kind: 'ticket_keys', keys: this.#unpacker.bytes(Number(item[1])) };
      case toGateway.other:
        return item[1] as GatewayEvent;
      default:
        return undefined;
    }
  }

  #push([, connection, subscription, revision, caughtUp, bytes, places]: PushItem): Push {
    const changes = places.map((place) => {
      const change = this.#changes[place];
      if (change === undefined) throw new RangeError(`a push names change ${place}, which was not sent`);
      return change;
    });
    return { kind: 'push', connection, subscription, changes, revision, caughtUp, bytes };
  }
}

const unpackWritten = ([, connection, request, revision, ...flat]: WrittenItem): GatewayEvent => {
  const results: OperationResult[] = [];
  for (let at = 0; at < flat.length; at += resultFields) {
    results.push({
      generation: Number(flat[at]),
      state: flat[at + 1] as OperationResult['state'],
      revision: Number(flat[at + 2]),
      unchanged: flat[at + 3] === true,
    });
  }
  return { kind: 'answer', connection, request, body: { kind: 'written', result: { revision, results } } };
};

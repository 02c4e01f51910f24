/** What gateways tell their server, as items of a message between threads. The frequent ones are tuples without names. */
import type { Operation } from '../../protocol/index.ts';
import type { GatewayNotice, GatewayRequest } from '../../server/index.ts';
import type { Item, Packer, Unpacker } from './packing.ts';

export const toServer = {
  write: 0,
  get: 1,
  request: 2,
  delivered: 3,
  notice: 4,
  enter: 5,
  leave: 6,
  reply: 7,
  report: 8,
  sole: 9,
} as const;

type Of<Kind extends GatewayRequest['kind']> = Extract<GatewayRequest, { readonly kind: Kind }>;
type Write = Of<'write'>;
type Get = Of<'get'>;

type WriteItem = readonly [
  tag: number,
  connection: number,
  request: number,
  session: string,
  principal: string,
  sequence: number,
  answeredBelow: number,
  operations: readonly Operation[],
  timeoutMs: number | null,
];
type GetItem = readonly [
  tag: number,
  connection: number,
  request: number,
  key: string,
  stale: boolean,
  timeoutMs: number | null,
];

export const packRequest = (packer: Packer, request: GatewayRequest): void => {
  switch (request.kind) {
    case 'write':
      packer.add(writeItem(packer, request));
      return;
    case 'get': {
      const { connection, request: number, key, stale, timeoutMs } = request;
      const item: GetItem = [toServer.get, connection, number, key, stale, timeoutMs ?? null];
      packer.add(item);
      return;
    }
    case 'acl_apply':
      packer.add([toServer.request, { ...request, document: packer.bytes(request.document) }]);
      return;
    case 'session_open':
    case 'session_close':
    case 'list':
    case 'await':
    case 'subscribe':
    case 'clock':
    case 'status':
    case 'member_list':
    case 'member_add':
    case 'member_promote':
    case 'member_remove':
    case 'transfer_leader':
    case 'drain_server':
    case 'rebalance':
    case 'snapshot_read':
    case 'acl_get':
    case 'acl_revoke':
    case 'acl_restore':
      packer.add([toServer.request, request]);
      return;
    default:
      request satisfies never;
  }
};

const writeItem = (packer: Packer, write: Write): Item => {
  const { connection, request, session, principal, sequence, answeredBelow, operations, timeoutMs } = write;
  const packed = operations.map((operation) =>
    operation.kind === 'resolve' ? { ...operation, value: packer.bytes(operation.value) } : operation,
  );
  return [
    toServer.write,
    connection,
    request,
    session,
    principal,
    sequence,
    answeredBelow,
    packed,
    timeoutMs ?? null,
  ];
};

/** In place of an object with bytes there is one with their length. */
type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

/** Undefined: the item is of another kind. */
export const unpackRequest = (unpacker: Unpacker, item: Item): GatewayRequest | undefined => {
  switch (item[0]) {
    case toServer.write:
      return unpackWrite(unpacker, item as WriteItem);
    case toServer.get: {
      const [, connection, request, key, stale, timeoutMs] = item as GetItem;
      const made: Get = {
        connection,
        request,
        kind: 'get',
        key,
        stale,
        ...(timeoutMs !== null && { timeoutMs }),
      };
      return made;
    }
    case toServer.request: {
      const request = item[1] as Mutable<GatewayRequest>;
      if (request.kind === 'acl_apply') request.document = unpacker.bytes(Number(request.document));
      return request;
    }
    default:
      return undefined;
  }
};

const unpackWrite = (unpacker: Unpacker, item: WriteItem): Write => {
  const [, connection, request, session, principal, sequence, answeredBelow, operations, timeoutMs] = item;
  for (const operation of operations as Mutable<Operation>[])
    if (operation.kind === 'resolve') operation.value = unpacker.bytes(Number(operation.value));
  return {
    connection,
    request,
    kind: 'write',
    session,
    principal,
    sequence,
    answeredBelow,
    operations,
    ...(timeoutMs !== null && { timeoutMs }),
  };
};

export const packNotice = (packer: Packer, notice: GatewayNotice): void => {
  if (notice.kind === 'delivered') packer.add([toServer.delivered, notice.connection, notice.bytes]);
  else packer.add([toServer.notice, notice]);
};

/** Undefined: the item is of another kind. */
export const unpackNotice = (item: Item): GatewayNotice | undefined => {
  if (item[0] === toServer.delivered)
    return { kind: 'delivered', connection: Number(item[1]), bytes: Number(item[2]) };
  return item[0] === toServer.notice ? (item[1] as GatewayNotice) : undefined;
};

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { jsonCodec } from '../../src/protocol/index.ts';
import type { Request, SharedPush } from '../../src/protocol/index.ts';
import type { GatewayEvent, GatewayNotice, GatewayRequest, Subject } from '../../src/server/index.ts';
import { Packer, Unpacker } from '../../src/gateway/workers/packing.ts';
import type { Packed } from '../../src/gateway/workers/packing.ts';
import { EventPacker, EventUnpacker } from '../../src/gateway/workers/to-gateway.ts';
import { packNotice, packRequest, unpackNotice, unpackRequest } from '../../src/gateway/workers/to-server.ts';
import { asSent, clientFrame, serverFrame } from '../protocol/arbitraries.ts';

/** As it comes out at the other end: the buffer is moved. */
const moved = ({ text, bytes }: Packed): Packed => structuredClone({ text, bytes }, { transfer: [bytes] });

const subject: Subject = {
  principal: { realm: 'puppet', name: 'web1', variables: { role: 'db' } },
  credential: { realm: 'puppet', name: 'web1', certificate: { serial: 'ab', issuedAtMs: 5 } },
};

/** As a connection makes it of what a client asks. */
const asked = (connection: number, { id, body, timeoutMs }: Request): GatewayRequest | undefined => {
  const base = { connection, request: id, ...(timeoutMs !== undefined && { timeoutMs }) };
  const session = '00112233445566778899aabbccddeeff';
  const principal = 'puppet:web1';
  switch (body.kind) {
    case 'cancel':
    case 'authenticate':
      return undefined;
    case 'open_session':
      return { ...base, ...body, kind: 'session_open', principal, subject };
    case 'close_session':
      return { ...base, kind: 'session_close', session, principal };
    case 'write':
      return { ...base, ...body, session, principal };
    case 'acl_apply': {
      const { force: _force, ...rest } = body;
      return { ...base, ...rest, by: subject };
    }
    case 'acl_revoke':
    case 'acl_restore':
    case 'member_add':
    case 'member_promote':
    case 'member_remove':
      return { ...base, ...body, by: subject };
    default:
      return { ...base, ...body };
  }
};

/** Buffers and arrays of bytes are the same here. */
const plain = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return Array.from(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .map(([name, inner]) => [name, plain(inner)]),
  );
};

const eventsOver = (events: readonly GatewayEvent[]): GatewayEvent[] => {
  const packer = new Packer();
  const packing = new EventPacker(packer);
  for (const event of events) packing.add(event);
  const unpacker = new Unpacker(moved(packer.take()));
  const unpacked = new EventUnpacker(unpacker);
  return unpacker.items.flatMap((item) => unpacked.event(item) ?? []);
};

describe('what crosses between threads', () => {
  test('comes to the server as the gateway said it, and in that order', () => {
    const said = fc.array(fc.tuple(fc.nat(), clientFrame), { maxLength: 4 });
    fc.assert(
      fc.property(said, (frames) => {
        const packer = new Packer();
        const told: (GatewayRequest | GatewayNotice)[] = [];
        for (const [connection, { requests }] of frames) {
          for (const each of requests) {
            const request = asked(connection, each);
            if (request === undefined) continue;
            told.push(request);
            packRequest(packer, request);
          }
          const notices: GatewayNotice[] = [
            { kind: 'delivered', connection, bytes: 7 },
            { kind: 'identified', connection, subject },
            { kind: 'closed', connection, session: undefined },
            { kind: 'progress_wanted', connections: [connection, 1] },
          ];
          for (const notice of notices) packNotice(packer, notice);
          told.push(...notices);
        }
        const unpacker = new Unpacker(moved(packer.take()));
        const heard = unpacker.items.map((item) => unpackRequest(unpacker, item) ?? unpackNotice(item));
        expect(plain(heard)).toEqual(plain(told));
      }),
    );
  });

  test('comes to the gateway as the server said it, and in that order', () => {
    fc.assert(
      fc.property(fc.nat(), serverFrame, (connection, received) => {
        const { answers, pushes } = asSent(received);
        const events: GatewayEvent[] = [
          ...answers.map(({ id, body }) => ({ kind: 'answer' as const, connection, request: id, body })),
          ...pushes.map((push) => pushEvent(connection, push)),
          { kind: 'ticket_keys', keys: new Uint8Array(48).fill(3) },
          { kind: 'ended', connection, subscription: 4, failure: { code: 'TIMED_OUT', message: 'ö\u2028' } },
          { kind: 'progress', connections: [1, 2], revision: 9 },
          {
            kind: 'access',
            revision: 5,
            document: { realms: {}, policies: { p: [{ allow: ['get'], on: '**' }] }, bindings: [] },
            revocations: [{ principal: 'puppet:web1' }] as never,
          },
        ];
        const heard = eventsOver(events).map((event) =>
          event.kind === 'push'
            ? { ...event, changes: event.changes.map(({ change, encoded }) => ({ change, encoded })) }
            : event,
        );
        expect(plain(heard)).toEqual(plain(events));
      }),
    );
  });

  test('has a change once, however many are sent it, and they share it there', () => {
    const future = {
      key: 'shared/a',
      generation: 1,
      state: 'resolved' as const,
      revision: 7,
      value: new Uint8Array(1000),
      contentType: 'text/plain',
      sensitive: false,
      producer: 'puppet:web1',
      changedAtMs: 1,
    };
    const change = { kind: 'future' as const, revision: 7, key: future.key, future };
    const shared = asSent({
      answers: [],
      pushes: [{ subscription: 1, changes: [change], revision: 7, caughtUp: false }],
    }).pushes[0] as SharedPush;
    const packer = new Packer();
    const packing = new EventPacker(packer);
    for (let connection = 0; connection < 50; connection += 1) packing.add(pushEvent(connection, shared));
    const message = packer.take();
    expect(message.bytes.byteLength).toBe(shared.changes[0]?.encoded.length);
    const unpacker = new Unpacker(moved(message));
    const unpacked = new EventUnpacker(unpacker);
    const heard = unpacker.items.flatMap((item) => unpacked.event(item) ?? []);
    const changes = heard.flatMap((event) => (event.kind === 'push' ? event.changes : []));
    expect([changes.length, new Set(changes).size]).toEqual([50, 1]);
    // Also for those who speak JSON, who need what is in it.
    const frame = jsonCodec.encodeServerFrame({
      answers: [],
      pushes: [{ subscription: 1, changes, revision: 7, caughtUp: false }],
    });
    expect(jsonCodec.decodeServerFrame(frame).pushes[0]?.changes[0]).toEqual(change);
  });

  test('keeps nothing of its message alive but itself', () => {
    const packer = new Packer();
    for (const size of [40, 1_000_000]) {
      const value = new Uint8Array(size).fill(size % 251);
      packRequest(packer, {
        connection: 1,
        request: size,
        kind: 'write',
        session: 's',
        principal: 'p',
        sequence: 1,
        answeredBelow: 1,
        operations: [
          {
            kind: 'resolve',
            key: 'k',
            preconditions: {},
            value,
            contentType: 't',
            sensitive: false,
            supersede: false,
          },
        ],
      });
    }
    const unpacker = new Unpacker(moved(packer.take()));
    const values = unpacker.items.map((item) => {
      const request = unpackRequest(unpacker, item);
      const operation = request?.kind === 'write' ? request.operations[0] : undefined;
      return operation?.kind === 'resolve' ? operation.value : new Uint8Array();
    });
    expect(values.map(({ length }) => length)).toEqual([40, 1_000_000]);
    expect(values.map((value) => value[0])).toEqual([40 % 251, 1_000_000 % 251]);
    expect(values[0]?.buffer.byteLength).toBeLessThanOrEqual(4096);
  });
});

const pushEvent = (connection: number, push: SharedPush): GatewayEvent => ({
  kind: 'push',
  connection,
  subscription: push.subscription,
  changes: push.changes,
  revision: push.revision,
  caughtUp: push.caughtUp,
  bytes: push.changes.reduce((sum, { encoded }) => sum + encoded.length, 0),
});

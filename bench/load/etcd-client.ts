/** As much of etcd's gRPC as the workloads need, over Node's HTTP/2: put, range, lease, watch, status, users. */
import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import protobuf from 'protobufjs';
// Settles for the whole process whether 64-bit fields are numbers: types that were parsed before would not know.
import '../../src/protocol/protobuf.ts';

/** The fields that are used, with the numbers of etcd's rpc.proto, kv.proto and auth.proto (v3.4). */
const schema = `
syntax = "proto3";
message KeyValue { bytes key = 1; int64 create_revision = 2; int64 mod_revision = 3; int64 version = 4; bytes value = 5; int64 lease = 6; }
message PutRequest { bytes key = 1; bytes value = 2; int64 lease = 3; }
message RequestOp { oneof request { PutRequest request_put = 2; } }
message TxnRequest { repeated RequestOp success = 2; }
message RangeRequest { bytes key = 1; bytes range_end = 2; int64 limit = 3; bool serializable = 7; bool keys_only = 8; bool count_only = 9; }
message RangeResponse { repeated KeyValue kvs = 2; bool more = 3; int64 count = 4; }
message LeaseGrantRequest { int64 TTL = 1; int64 ID = 2; }
message LeaseGrantResponse { int64 ID = 2; int64 TTL = 3; }
message WatchCreateRequest { bytes key = 1; bytes range_end = 2; int64 start_revision = 3; int64 watch_id = 7; }
message WatchRequest { oneof request { WatchCreateRequest create_request = 1; } }
message Event { int32 type = 1; KeyValue kv = 2; }
message WatchResponse { int64 watch_id = 2; bool created = 3; bool canceled = 4; repeated Event events = 11; }
message StatusRequest {}
message ResponseHeader { uint64 cluster_id = 1; uint64 member_id = 2; }
message StatusResponse { ResponseHeader header = 1; string version = 2; int64 dbSize = 3; uint64 leader = 4; }
message AuthEnableRequest {}
message UserAddOptions { bool no_password = 1; }
message AuthUserAddRequest { string name = 1; string password = 2; UserAddOptions options = 3; }
message AuthRoleAddRequest { string name = 1; }
message Permission { int32 permType = 1; bytes key = 2; bytes range_end = 3; }
message AuthRoleGrantPermissionRequest { string name = 1; Permission perm = 2; }
message AuthUserGrantRoleRequest { string user = 1; string role = 2; }
`;

const { root } = protobuf.parse(schema, { keepCase: true });
const typeOf = (name: string): protobuf.Type => root.lookupType(name);

/** A gRPC message: one byte for "not compressed", four for the length, then the bytes. */
export const grpcFrame = (name: string, fields: object): Buffer => {
  const bytes = typeOf(name).encode(typeOf(name).create(fields)).finish();
  const frame = Buffer.allocUnsafe(5 + bytes.length);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(bytes.length, 1);
  frame.set(bytes, 5);
  return frame;
};

/** Cuts what arrives into messages. */
class FrameReader {
  #pending: Buffer = Buffer.alloc(0);

  *read(chunk: Buffer): Generator<Buffer> {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length >= 5) {
      const end = 5 + this.#pending.readUInt32BE(1);
      if (this.#pending.length < end) return;
      yield this.#pending.subarray(5, end);
      this.#pending = this.#pending.subarray(end);
    }
  }
}

export interface WatchedEvent {
  readonly key: string;
  readonly value: Uint8Array;
  readonly watch: number;
}

/** PEM: the servers' authority, and what a client shows that has a certificate. */
export interface EtcdTls {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Of auth.proto. */
const permissionToRead = 0;

/** The first key behind all that begin with it. */
const endOf = (prefix: string): Buffer => {
  const end = Buffer.from(prefix);
  end.writeUInt8(end.readUInt8(end.length - 1) + 1, end.length - 1);
  return end;
};

interface RangeOptions {
  /** Answered by the member that is asked, without a quorum. */
  readonly serializable: boolean;
}

export class EtcdClient {
  readonly #session: ClientHttp2Session;

  constructor(endpoint: string, tls: EtcdTls | undefined) {
    this.#session = connect(endpoint, tls === undefined ? {} : { ...tls, ALPNProtocols: ['h2'] });
    // Each request on it fails, and tells.
    this.#session.on('error', () => {});
  }

  async put(key: string, value: string, lease = 0): Promise<void> {
    await this.#unary('etcdserverpb.KV/Put', 'PutRequest', {
      key: Buffer.from(key),
      value: Buffer.from(value),
      lease,
    });
  }

  /** At most 128 of them, which is what etcd takes by default. */
  async putAll(keys: readonly string[], value: string, lease: number): Promise<void> {
    const put = { value: Buffer.from(value), lease };
    const success = keys.map((key) => ({ request_put: { ...put, key: Buffer.from(key) } }));
    await this.#unary('etcdserverpb.KV/Txn', 'TxnRequest', { success });
  }

  /** The value, undefined if there is none. */
  async range(key: string, { serializable }: RangeOptions): Promise<Uint8Array | undefined> {
    const answer = await this.#unary(
      'etcdserverpb.KV/Range',
      'RangeRequest',
      { key: Buffer.from(key), serializable },
      'RangeResponse',
    );
    const { kvs } = answer as { kvs: { value: Uint8Array }[] };
    return kvs[0]?.value;
  }

  /** How many keys begin with it. */
  async count(prefix: string): Promise<number> {
    const answer = await this.#unary(
      'etcdserverpb.KV/Range',
      'RangeRequest',
      { key: Buffer.from(prefix), range_end: endOf(prefix), count_only: true },
      'RangeResponse',
    );
    return Number((answer as { count: unknown }).count);
  }

  /** The new lease's id, for `put`. */
  async lease(seconds: number): Promise<number> {
    const answer = await this.#unary(
      'etcdserverpb.Lease/LeaseGrant',
      'LeaseGrantRequest',
      { TTL: seconds, ID: Math.floor(Math.random() * 2 ** 50) + 1 },
      'LeaseGrantResponse',
    );
    return Number((answer as { ID: unknown }).ID);
  }

  async status(): Promise<{ readonly leader: string; readonly member: string }> {
    const answer = await this.#unary(
      'etcdserverpb.Maintenance/Status',
      'StatusRequest',
      {},
      'StatusResponse',
    );
    const { leader, header } = answer as { leader: unknown; header: { member_id: unknown } };
    return { leader: String(leader), member: String(header.member_id) };
  }

  /** Watches each key for itself, all on one stream; resolves when all watches are made. */
  async watch(keys: readonly string[], told: (event: WatchedEvent) => void): Promise<() => void> {
    return await this.#watch(
      keys.map((key) => ({ key: Buffer.from(key) })),
      told,
    );
  }

  /** One watch of all keys that begin with it; resolves when it is made. */
  async watchPrefix(prefix: string, told: (event: WatchedEvent) => void): Promise<() => void> {
    return await this.#watch([{ key: Buffer.from(prefix), range_end: endOf(prefix) }], told);
  }

  /** From now on only users may ask anything; there has to be a `root` with the role `root`. */
  async enableAuth(): Promise<void> {
    await this.#unary('etcdserverpb.Auth/AuthEnable', 'AuthEnableRequest', {});
  }

  /** One who is known by the name in its certificate, with a role of the same name. `reads`: what the role may read begins with it. */
  async addUser(name: string, reads?: string): Promise<void> {
    await this.#unary('etcdserverpb.Auth/UserAdd', 'AuthUserAddRequest', {
      name,
      options: { no_password: true },
    });
    await this.#unary('etcdserverpb.Auth/RoleAdd', 'AuthRoleAddRequest', { name });
    if (reads !== undefined) {
      const perm = { permType: permissionToRead, key: Buffer.from(reads), range_end: endOf(reads) };
      await this.#unary('etcdserverpb.Auth/RoleGrantPermission', 'AuthRoleGrantPermissionRequest', {
        name,
        perm,
      });
    }
    await this.#unary('etcdserverpb.Auth/UserGrantRole', 'AuthUserGrantRoleRequest', {
      user: name,
      role: name,
    });
  }

  async #watch(ranges: readonly object[], told: (event: WatchedEvent) => void): Promise<() => void> {
    const stream = this.#request('etcdserverpb.Watch/Watch');
    const reader = new FrameReader();
    let made = 0;
    const ready = new Promise<void>((resolve, reject) => {
      stream.on('error', reject);
      stream.on('data', (chunk: Buffer) => {
        for (const frame of reader.read(chunk)) {
          const answer = typeOf('WatchResponse').decode(frame) as unknown as {
            watch_id: unknown;
            created: boolean;
            canceled: boolean;
            events: { kv: { key: Uint8Array; value: Uint8Array } }[];
          };
          if (answer.canceled) reject(new Error('etcd has refused a watch'));
          if (answer.created) {
            made += 1;
            if (made === ranges.length) resolve();
          }
          for (const { kv } of answer.events)
            told({
              key: Buffer.from(kv.key).toString(),
              value: kv.value,
              watch: Number(answer.watch_id),
            });
        }
      });
    });
    for (const range of ranges) stream.write(grpcFrame('WatchRequest', { create_request: range }));
    await ready;
    return () => stream.close();
  }

  close(): void {
    this.#session.destroy();
  }

  #request(method: string): ClientHttp2Stream {
    return this.#session.request(
      {
        [constants.HTTP2_HEADER_METHOD]: 'POST',
        [constants.HTTP2_HEADER_PATH]: `/${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
      },
      { endStream: false },
    );
  }

  #unary(method: string, request: string, fields: object, answer?: string): Promise<object | undefined> {
    return new Promise((resolve, reject) => {
      const stream = this.#request(method);
      const reader = new FrameReader();
      let decoded: object | undefined;
      let problem: string | undefined;
      const refused = (headers: Record<string, unknown>): void => {
        const status = headers['grpc-status'];
        if (status !== undefined && status !== '0')
          problem = `${method}: status ${JSON.stringify(status)} ${JSON.stringify(headers['grpc-message'])}`;
      };
      stream.on('response', refused);
      stream.on('trailers', refused);
      stream.on('error', reject);
      stream.on('data', (chunk: Buffer) => {
        for (const frame of reader.read(chunk))
          if (answer !== undefined) decoded = typeOf(answer).decode(frame);
      });
      stream.on('close', () => {
        if (problem === undefined) resolve(decoded);
        else reject(new Error(problem));
      });
      stream.end(grpcFrame(request, fields));
    });
  }
}

/** The state as records: which of them are to be written, and the digest of them all. */
import { Digest } from './digest.ts';
import type { KeyRecord } from './future-table.ts';
import {
  encodeCounters,
  encodeExpiry,
  encodeKeyRecord,
  encodeMember,
  encodePolicies,
  encodeRevocation,
  encodeServer,
  encodeSession,
  encodeTicketKeys,
  recordKeys,
} from './state-codec.ts';
import type { Tables } from './tables.ts';
import type { StateWrite } from './types.ts';

/** All records that changed since the last call, each once; of those whose rewriting was deferred at most `deferredMax`. */
export const takeStateWrites = (tables: Tables, deferredMax: number): readonly StateWrite[] => {
  const writes: StateWrite[] = [];
  const write = (key: string, record: KeyRecord | undefined): void => {
    writes.push({ key: recordKeys.future(key), value: record && encodeKeyRecord(record) });
  };
  tables.futures.takeDirty(write);
  const { expiries } = tables.futures;
  expiries.takeWaiting(deferredMax, (record) => write(record.key, record));
  expiries.takeChanged((group, present) => {
    writes.push({
      key: recordKeys.expiry(group.revision),
      value: present ? encodeExpiry(group) : undefined,
    });
  });
  tables.sessions.takeDirty((id, session) => {
    writes.push({ key: recordKeys.session(id), value: session && encodeSession(session) });
  });
  tables.servers.takeDirty((member, server) => {
    writes.push({ key: recordKeys.server(member), value: server && encodeServer(server) });
  });
  tables.members.takeDirty((member, record) => {
    writes.push({ key: recordKeys.member(member), value: record && encodeMember(record) });
  });
  tables.access.takeDirty(
    (present) => {
      const { revision, document, strictQuotas } = tables.access;
      writes.push({
        key: recordKeys.policies,
        value: present ? encodePolicies(revision, document, strictQuotas) : undefined,
      });
    },
    (key, record) =>
      writes.push({ key: recordKeys.revocation(key), value: record && encodeRevocation(record) }),
  );
  tables.ticketKeys.takeDirty((keys) => {
    writes.push({ key: recordKeys.ticketKeys, value: keys && encodeTicketKeys(keys) });
  });
  if (tables.countersDirty) {
    writes.push({ key: recordKeys.counters, value: encodeCounters(tables.counters) });
    tables.countersDirty = false;
  }
  return writes;
};

/** Of all records of the state in the order of their keys: replicas that have applied the same have the same. */
export const digestOf = (tables: Tables): string => {
  const records: { key: string; bytes: Uint8Array }[] = [];
  for (const record of tables.futures.records()) {
    records.push({ key: recordKeys.future(record.key), bytes: encodeKeyRecord(record) });
  }
  for (const session of tables.sessions.all()) {
    records.push({ key: recordKeys.session(session.id), bytes: encodeSession(session) });
  }
  for (const server of tables.servers.all()) {
    records.push({ key: recordKeys.server(server.member), bytes: encodeServer(server) });
  }
  for (const member of tables.members.sorted) {
    records.push({ key: recordKeys.member(member.member), bytes: encodeMember(member) });
  }
  if (tables.access.active) {
    const { revision, document, strictQuotas } = tables.access;
    records.push({ key: recordKeys.policies, bytes: encodePolicies(revision, document, strictQuotas) });
  }
  for (const [key, record] of tables.access.revocations) {
    records.push({ key: recordKeys.revocation(key), bytes: encodeRevocation(record) });
  }
  const { current } = tables.ticketKeys;
  if (current !== undefined) records.push({ key: recordKeys.ticketKeys, bytes: encodeTicketKeys(current) });
  records.push({ key: recordKeys.counters, bytes: encodeCounters(tables.counters) });
  records.sort((a, b) => (a.key < b.key ? -1 : 1));
  const digest = new Digest();
  for (const { key, bytes } of records) {
    digest.addText(key);
    digest.addBytes(bytes);
  }
  return digest.hex();
};

/** Builds the tables from the records of a state, and refuses what cannot be a state. */
import { revocationKey, type AccessTable } from './access.ts';
import { assert } from './assert.ts';
import type { ExpiryGroup } from './expiry-groups.ts';
import type { FutureTable, KeyRecord } from './future-table.ts';
import type { MemberTable } from './members.ts';
import { RememberedAnswers } from './remembered-answers.ts';
import { inRevisionOrder } from './revision-order.ts';
import type { ServerTable } from './servers.ts';
import type { SessionTable } from './sessions.ts';
import type { TicketKeyTable } from './ticket-keys.ts';
import {
  damaged,
  decodeCounters,
  decodeExpiry,
  decodeKeyRecord,
  decodeMember,
  decodePolicies,
  decodeRevocation,
  decodeServer,
  decodeSession,
  decodeTicketKeys,
  recordKeys,
  type Counters,
  type LoadedSession,
} from './state-codec.ts';
import { expired } from './transitions.ts';
import type { SessionId, StateRecord } from './types.ts';

interface LoadTarget {
  readonly futures: FutureTable;
  readonly sessions: SessionTable;
  readonly servers: ServerTable;
  readonly members: MemberTable;
  readonly access: AccessTable;
  readonly ticketKeys: TicketKeyTable;
  readonly counters: Counters;
}

export class StateLoader {
  readonly #target: LoadTarget;
  readonly #records: KeyRecord[] = [];
  readonly #ties: { readonly record: KeyRecord; readonly session: SessionId }[] = [];
  readonly #sessions = new Map<SessionId, LoadedSession>();
  readonly #groups: ExpiryGroup[] = [];
  #counters: Counters | undefined;

  constructor(target: LoadTarget) {
    this.#target = target;
  }

  add(records: readonly StateRecord[]): void {
    for (const { key, value } of records) {
      if (key.startsWith('f/')) this.#addKey(key, value);
      else if (key.startsWith('s/')) this.#addSession(key, value);
      else if (key.startsWith('m/')) this.#addServer(key, value);
      else if (key.startsWith('w/')) this.#addMember(key, value);
      else if (key.startsWith('e/')) this.#groups.push(decodeExpiry(key, value));
      else if (key === recordKeys.policies) this.#addPolicies(key, value);
      else if (key.startsWith('r/')) this.#addRevocation(key, value);
      else if (key === recordKeys.ticketKeys) {
        const loaded = this.#target.ticketKeys.load(decodeTicketKeys(key, value));
        if (loaded === undefined) throw damaged(key, 'is there twice');
      } else if (key === recordKeys.counters) this.#addCounters(key, value);
      else throw damaged(key, 'is of no kind that this version knows');
    }
  }

  /** In steps, so that a large state does not stop the loop; all of them are to be taken. */
  *finish(keepUp: (timeMs: number) => void): Generator<void, void, undefined> {
    const { futures, counters } = this.#target;
    const loaded = this.#counters;
    if (loaded === undefined) {
      const { servers, members, access } = this.#target;
      const sizes = [this.#records.length, this.#sessions.size, servers.size, members.size, access.size];
      const empty = sizes.every((size) => size === 0);
      if (!empty) throw damaged(recordKeys.counters, 'is missing');
      return;
    }
    Object.assign(counters, loaded);
    keepUp(counters.timeMs);
    yield* this.#endExpired(loaded);
    const records = yield* inRevisionOrder(this.#records);
    this.#checkRevisions(loaded, records);
    yield;
    this.#checkMembers(loaded);
    this.#checkAccess(loaded);
    for (const session of this.#sessions.values()) this.#putSession(session);
    for (const { record, session } of this.#ties) {
      // Its own record is older than its end.
      if (record.future?.state !== 'pending') continue;
      const found = this.#target.sessions.find(session);
      if (found === undefined)
        throw damaged(recordKeys.future(record.key), 'is tied to a session that is not there');
      futures.tieLoaded(record, found);
    }
    yield* futures.placeLoaded(records);
  }

  #addKey(recordKey: string, bytes: Uint8Array): void {
    const loaded = decodeKeyRecord(recordKey, bytes);
    const slot = {
      future: loaded.future,
      lastGeneration: loaded.generation,
      createdRevision: loaded.createdRevision,
      tied: undefined,
      payer: loaded.payer,
    };
    const record = this.#target.futures.load(loaded.key, slot, loaded.revision, loaded.changedAtMs);
    if (record === undefined) throw damaged(recordKey, 'is there twice');
    this.#records.push(record);
    if (loaded.tiedSession !== undefined) this.#ties.push({ record, session: loaded.tiedSession });
  }

  #addSession(recordKey: string, bytes: Uint8Array): void {
    const session = decodeSession(recordKey, bytes);
    if (this.#sessions.has(session.id)) throw damaged(recordKey, 'is there twice');
    this.#sessions.set(session.id, session);
  }

  #addServer(recordKey: string, bytes: Uint8Array): void {
    const server = decodeServer(recordKey, bytes);
    if (this.#target.servers.find(server.member) !== undefined) throw damaged(recordKey, 'is there twice');
    this.#target.servers.load(server);
  }

  #addMember(recordKey: string, bytes: Uint8Array): void {
    if (!this.#target.members.load(decodeMember(recordKey, bytes)))
      throw damaged(recordKey, 'is there twice');
  }

  #addPolicies(recordKey: string, bytes: Uint8Array): void {
    const { revision, document, strictQuotas } = decodePolicies(recordKey, bytes);
    let isNew: boolean;
    try {
      isNew = this.#target.access.loadPolicies(revision, document, strictQuotas);
    } catch (cause) {
      throw damaged(recordKey, 'is no policy document', cause);
    }
    if (!isNew) throw damaged(recordKey, 'is there twice');
  }

  #addRevocation(recordKey: string, bytes: Uint8Array): void {
    const record = decodeRevocation(recordKey, bytes);
    if (recordKeys.revocation(revocationKey(record.revocation)) !== recordKey)
      throw damaged(recordKey, 'holds another revocation');
    if (!this.#target.access.loadRevocation(record)) throw damaged(recordKey, 'is there twice');
  }

  #addCounters(recordKey: string, bytes: Uint8Array): void {
    if (this.#counters !== undefined) throw damaged(recordKey, 'is there twice');
    this.#counters = decodeCounters(recordKey, bytes);
  }

  /** What the groups say, where a key has not changed since. */
  *#endExpired({ revision }: Counters): Generator<void, void, undefined> {
    const { futures } = this.#target;
    this.#groups.sort((a, b) => a.revision - b.revision);
    for (const group of this.#groups) {
      if (group.revision > revision) {
        throw damaged(recordKeys.expiry(group.revision), `is behind the state's revision ${revision}`);
      }
      for (const [at, key] of group.keys.entries()) {
        const record = futures.find(key);
        const future = record?.future;
        if (record === undefined || future === undefined) continue;
        if (future.generation !== group.generations[at] || record.revision >= group.revision) continue;
        futures.endLoaded(record, expired(future, group.revision, group.atMs), group);
      }
      futures.expiries.loaded(group);
      yield;
    }
  }

  #checkRevisions({ revision, forgottenUpTo }: Counters, records: readonly KeyRecord[]): void {
    const last = records.at(-1);
    if (last !== undefined && last.revision > revision) {
      throw damaged(
        recordKeys.future(last.key),
        `has revision ${last.revision}, behind the state's ${revision}`,
      );
    }
    for (const record of records) {
      if (record.tombstone !== undefined && record.revision <= forgottenUpTo) {
        throw damaged(recordKeys.future(record.key), 'is a deletion that was forgotten');
      }
    }
  }

  #checkMembers({ lastMember }: Counters): void {
    const last = this.#target.members.sorted.at(-1);
    if (last !== undefined && last.member > lastMember)
      throw damaged(recordKeys.member(last.member), `has an id above the last one given, ${lastMember}`);
  }

  #checkAccess({ revision }: Counters): void {
    const { access } = this.#target;
    const last = Math.max(access.revision, ...access.revocations.map(([, record]) => record.revision));
    if (last > revision)
      throw damaged(
        recordKeys.policies,
        `or a revocation has revision ${last}, behind the state's ${revision}`,
      );
    if (access.revocations.length > 0 && !access.active)
      throw damaged(recordKeys.policies, 'is missing though there are revocations');
  }

  #putSession(loaded: LoadedSession): void {
    const { sessions } = this.#target;
    const session = sessions.create(loaded.id, loaded.principal, loaded.graceMs);
    if (loaded.member === 0) sessions.detach(session, loaded.expiresAtMs);
    else sessions.attach(session, loaded, loaded.graceMs);
    session.answeredBelow = loaded.answeredBelow;
    session.subject = loaded.subject;
    assert(session.answers === undefined, 'a new session remembers answers');
    for (const remembered of loaded.answers) (session.answers ??= new RememberedAnswers()).set(remembered);
  }
}

/** What the store must do, said as plainly as can be: plain objects, everything copied, everything searched. */
import type { Operation } from '../../../src/protocol/index.ts';
import type { LogEntry } from '../../../src/store/index.ts';

interface ModelFuture {
  generation: number;
  state: string;
  revision: number;
  value?: string;
  contentType: string;
  sensitive: boolean;
  rejection?: string;
  producer: string;
  changedAtMs: number;
  expiresAtMs?: number;
  deadlineAtMs?: number;
  tied?: string;
}

interface ModelSession {
  principal: string;
  graceMs: number;
  at?: { member: number; run: number; connection: number };
  detachedAtMs: number;
  below: number;
  answers: Record<number, unknown>;
}

interface ModelMember {
  name: string;
  addresses: string;
  wanted: string;
}

interface State {
  timeMs: number;
  revision: number;
  forgottenUpTo: number;
  floor: number;
  futures: Record<string, ModelFuture>;
  deleted: Record<string, { generation: number; revision: number; atMs: number }>;
  sessions: Record<string, ModelSession>;
  runs: Record<number, number>;
  /** Of the present run: what was answered to each request about members. */
  changes: Record<number, { run: number; answers: Record<number, unknown> }>;
  members: Record<number, ModelMember>;
  lastMember: number;
  /** The number of the present ones; 0: none. */
  ticketKeys: number;
  /** Of the last configuration entry. */
  configured: readonly number[];
}

type MemberCommand = Extract<
  LogEntry['commands'][number],
  { kind: 'member_add' | 'member_promote' | 'member_remove' }
>;

class Refused extends Error {}
const refuse = (code: string): never => {
  throw new Refused(code);
};

export class Model {
  s: State = {
    timeMs: 0,
    revision: 0,
    forgottenUpTo: 0,
    floor: 0,
    futures: {},
    deleted: {},
    sessions: {},
    runs: {},
    changes: {},
    members: {},
    lastMember: 0,
    ticketKeys: 0,
    configured: [],
  };
  readonly #sessionsMax: number;
  readonly #tombstonesMax: number;
  readonly #tombstoneAgeMs: number;

  constructor(options: { sessionsMax: number; tombstonesMax: number; tombstoneAgeMs: number }) {
    this.#sessionsMax = options.sessionsMax;
    this.#tombstonesMax = options.tombstonesMax;
    this.#tombstoneAgeMs = options.tombstoneAgeMs;
  }

  /** Results as 'done', 'CODE', 'CODE@operation' or the write's result. */
  apply(entry: LogEntry): unknown[] {
    this.s.timeMs = Math.max(this.s.timeMs, entry.timeMs);
    const results = entry.commands.map((command) => {
      const before = JSON.stringify([this.s.futures, this.s.deleted]);
      this.s.revision++;
      const result = this.#run(command);
      if (JSON.stringify([this.s.futures, this.s.deleted]) === before) this.s.revision--;
      return result;
    });
    this.#forget();
    return results;
  }

  configure(members: readonly number[]): void {
    const { s } = this;
    s.configured = members;
    s.lastMember = Math.max(s.lastMember, ...members);
    for (const [id, { wanted }] of Object.entries(s.members)) {
      const member = Number(id);
      if (wanted !== 'removed' || members.includes(member)) continue;
      delete s.members[member];
      delete s.runs[member];
      delete s.changes[member];
      for (const session of Object.values(s.sessions))
        if (session.at?.member === member) this.#detach(session);
    }
  }

  /** The latest change of each key after a revision, as 'key@revision' or '-key@revision'. */
  changesAfter(revision: number): string[] {
    const all = [
      ...Object.entries(this.s.futures).map(([key, f]) => ({
        text: `${key}@${f.revision}`,
        revision: f.revision,
      })),
      ...Object.entries(this.s.deleted).map(([key, d]) => ({
        text: `-${key}@${d.revision}`,
        revision: d.revision,
      })),
    ];
    return all.filter((one) => one.revision > revision).map(({ text }) => text);
  }

  #run(command: LogEntry['commands'][number]): unknown {
    const { s } = this;
    const { origin } = command;
    switch (command.kind) {
      case 'write': {
        const session = s.sessions[command.session];
        if (session?.principal !== command.principal) return 'SESSION_EXPIRED';
        session.below = Math.max(session.below, command.answeredBelow);
        for (const n of Object.keys(session.answers))
          if (Number(n) < session.below) delete session.answers[Number(n)];
        if (command.sequence < session.below) return 'STALE_REQUEST';
        return (session.answers[command.sequence] ??= this.#batch(
          command.operations,
          command.session,
          command.principal,
        ));
      }
      case 'session_open': {
        const known = s.sessions[command.session];
        if (known !== undefined && known.principal !== command.principal) return 'SESSION_EXPIRED';
        if (known === undefined) {
          if (command.resume) return 'SESSION_EXPIRED';
          if (Object.keys(s.sessions).length >= this.#sessionsMax) {
            const detached = Object.entries(s.sessions).filter(([, { at }]) => at === undefined);
            detached.sort(([a, x], [b, y]) => x.detachedAtMs - y.detachedAtMs || (a < b ? -1 : 1));
            const oldest = detached[0]?.[0];
            if (oldest === undefined) return 'LIMIT_EXCEEDED';
            this.#end(oldest);
          }
        }
        s.sessions[command.session] = {
          below: 0,
          answers: {},
          ...known,
          principal: command.principal,
          graceMs: command.graceMs,
          detachedAtMs: 0,
          at: { member: origin.member, run: origin.run, connection: command.connection },
        };
        const opened = s.sessions[command.session];
        if (opened !== undefined && this.#hasLeft(origin.member)) this.#detach(opened);
        return 'done';
      }
      case 'session_close': {
        const session = s.sessions[command.session];
        if (session?.principal !== command.principal) return 'done';
        if (Object.values(s.futures).some(({ tied }) => tied === command.session)) this.#detach(session);
        else delete s.sessions[command.session];
        return 'done';
      }
      case 'session_detach': {
        const session = s.sessions[command.session];
        const at = { member: origin.member, run: origin.run, connection: command.connection };
        if (session !== undefined && JSON.stringify(session.at) === JSON.stringify(at)) this.#detach(session);
        return 'done';
      }
      case 'server_started':
        if (this.#runOf(command.member) > command.run || this.#hasLeft(command.member)) return 'done';
        s.runs[command.member] = command.run;
        for (const session of Object.values(s.sessions)) {
          if (session.at?.member === command.member && session.at.run < command.run) this.#detach(session);
        }
        return 'done';
      case 'server_lost':
        if (this.#runOf(command.member) !== command.run) return 'done';
        for (const session of Object.values(s.sessions))
          if (session.at?.member === command.member) this.#detach(session);
        return 'done';
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
        return this.#changeMembersOnce(command);
      case 'ticket_keys':
        if (command.number === s.ticketKeys + 1) s.ticketKeys += 1;
        return 'done';
      case 'expire':
        for (const { key, generation, atMs } of command.futures) {
          const f = s.futures[key];
          if (f?.generation !== generation || atMs > s.timeMs) continue;
          if (f.state === 'pending' && f.deadlineAtMs === atMs) this.#rejectAlone(f, 'DEADLINE_EXCEEDED');
          else if ((f.state === 'resolved' || f.state === 'rejected') && f.expiresAtMs === atMs) {
            delete f.value;
            delete f.rejection;
            Object.assign(f, { state: 'expired', revision: s.revision, changedAtMs: s.timeMs });
          }
        }
        for (const { session: id, atMs } of command.sessions) {
          const session = s.sessions[id];
          if (session === undefined || session.at !== undefined) continue;
          if (session.detachedAtMs + session.graceMs === atMs && atMs <= s.timeMs) this.#end(id);
        }
        return 'done';
      case 'acl_apply':
      case 'acl_revoke':
      case 'acl_restore':
        throw new Error('access is not part of the model: access.test.ts');
      default:
        return command satisfies never;
    }
  }

  #changeMembersOnce(command: MemberCommand): unknown {
    const { s } = this;
    const { member, run, request } = command.origin;
    const earlier = s.changes[member];
    if (this.#hasLeft(member) || this.#runOf(member) > run) return 'MEMBERSHIP_REFUSED';
    const answers = earlier?.run === run ? earlier.answers : {};
    const last = Math.max(0, ...Object.keys(answers).map(Number));
    if (request < last) return 'MEMBERSHIP_REFUSED';
    s.changes[member] = { run, answers };
    return (answers[request] ??= this.#changeMembers(command));
  }

  /** The latest that was heard of. */
  #runOf(member: number): number {
    return Math.max(this.s.runs[member] ?? 0, this.s.changes[member]?.run ?? 0);
  }

  #changeMembers(command: MemberCommand): unknown {
    const { s } = this;
    switch (command.kind) {
      case 'member_add':
        return this.#addMember(command);
      case 'member_promote':
        if (this.#hasLeft(command.member)) return 'MEMBERSHIP_REFUSED';
        if (s.members[command.member]?.wanted === 'removed') return 'MEMBERSHIP_REFUSED';
        this.#want(command.member, 'voter');
        return { member: command.member };
      case 'member_remove':
        if (this.#hasLeft(command.member)) return 'MEMBERSHIP_REFUSED';
        this.#want(command.member, 'removed');
        return { member: command.member };
      default:
        return command satisfies never;
    }
  }

  #addMember(command: Extract<MemberCommand, { kind: 'member_add' }>): unknown {
    const { s } = this;
    const { name, replaces } = command;
    const addresses = `${command.peersAddress} ${command.agentsUrl}`;
    const replacing = replaces !== 0;
    const entries = Object.entries(s.members).map(([id, one]) => ({ id: Number(id), ...one }));
    const known = entries.find((one) => one.name === name && one.wanted !== 'removed' && one.id !== replaces);
    if (known !== undefined && known.addresses !== addresses) return 'MEMBERSHIP_REFUSED';
    if (known !== undefined) {
      if (replacing && !this.#hasLeft(replaces)) {
        this.#want(known.id, 'voter');
        this.#want(replaces, 'removed');
      }
      return { member: known.id };
    }
    if (replacing && (this.#hasLeft(replaces) || s.members[replaces]?.wanted === 'removed'))
      return 'MEMBERSHIP_REFUSED';
    let member = Math.max(command.least, s.lastMember + 1);
    if (replacing && member <= replaces) member = replaces + 1;
    s.members[member] = { name, addresses, wanted: replacing ? 'voter' : 'learner' };
    s.lastMember = member;
    if (replacing) this.#want(replaces, 'removed');
    return { member };
  }

  #want(member: number, wanted: string): void {
    const { s } = this;
    s.members[member] = { ...(s.members[member] ?? { name: '', addresses: ' ' }), wanted };
    s.lastMember = Math.max(s.lastMember, member);
  }

  #hasLeft(member: number): boolean {
    const { configured, members } = this.s;
    return configured.length > 0 && !configured.includes(member) && members[member] === undefined;
  }

  #batch(operations: readonly Operation[], session: string, principal: string): unknown {
    const before = structuredClone(this.s);
    const results: { generation: number; state: string; revision: number; unchanged: boolean }[] = [];
    for (const [number, operation] of operations.entries()) {
      try {
        results.push(this.#operate(operation, session, principal));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        const { futures, deleted } = before;
        Object.assign(this.s, { futures, deleted });
        return `${error.message}@${number}`;
      }
    }
    const changed = results.some(({ unchanged }) => !unchanged);
    return { revision: changed ? this.s.revision : this.s.revision - 1, results };
  }

  #operate(o: Operation, session: string, principal: string) {
    const { s } = this;
    const f = s.futures[o.key];
    const { ifRevision, ifGeneration, ifAbsent } = o.preconditions;
    if (ifRevision !== undefined && f?.revision !== ifRevision) refuse('PRECONDITION_FAILED');
    if (ifGeneration !== undefined && f?.generation !== ifGeneration) refuse('PRECONDITION_FAILED');
    if (ifAbsent === true && f !== undefined) refuse('PRECONDITION_FAILED');
    const late =
      f !== undefined &&
      (f.state === 'pending' ? f.deadlineAtMs : f.expiresAtMs) !== undefined &&
      ((f.state === 'pending' ? f.deadlineAtMs : f.expiresAtMs) ?? 0) <= s.timeMs;
    const state =
      f === undefined ? 'absent' : late ? (f.state === 'pending' ? 'rejected' : 'expired') : f.state;
    const result = (unchanged: boolean) => {
      const now = s.futures[o.key];
      if (now === undefined) throw new Error('absent');
      const stale = now.state !== 'pending' && now.expiresAtMs !== undefined && now.expiresAtMs <= s.timeMs;
      return {
        generation: now.generation,
        state: stale ? 'expired' : now.state,
        revision: now.revision,
        unchanged,
      };
    };
    const next = (): ModelFuture => {
      const generation = (f?.generation ?? s.deleted[o.key]?.generation ?? s.floor) + 1;
      delete s.deleted[o.key];
      const { revision, timeMs: changedAtMs } = s;
      const fresh = {
        generation,
        state: 'pending',
        revision,
        contentType: '',
        sensitive: false,
        producer: principal,
      };
      return (s.futures[o.key] = { ...fresh, changedAtMs });
    };
    const change = (one: ModelFuture, what: Partial<ModelFuture>): void => {
      Object.assign(one, what, { revision: s.revision, changedAtMs: s.timeMs });
    };
    switch (o.kind) {
      case 'declare': {
        if (f !== undefined && state === 'pending') {
          if (f.producer !== principal) return result(true);
          const tied = o.tied ? session : f.tied;
          const deadlineAtMs = o.deadlineMs === undefined ? f.deadlineAtMs : s.timeMs + o.deadlineMs;
          if (tied === f.tied && deadlineAtMs === f.deadlineAtMs) return result(true);
          change(f, { ...(tied && { tied }), ...(deadlineAtMs && { deadlineAtMs }) });
          return result(false);
        }
        if (f !== undefined && !o.renew) return result(true);
        change(next(), {
          ...(o.tied && { tied: session }),
          ...(o.deadlineMs && { deadlineAtMs: s.timeMs + o.deadlineMs }),
        });
        return result(false);
      }
      case 'resolve':
      case 'reject': {
        if (f !== undefined && state === 'resolved') {
          const same = o.kind === 'resolve' && f.value === String(o.value) && f.contentType === o.contentType;
          if (same && f.sensitive === o.sensitive) {
            if (o.ttlMs === undefined || f.expiresAtMs === s.timeMs + o.ttlMs) return result(true);
            change(f, { expiresAtMs: s.timeMs + o.ttlMs });
            return result(false);
          }
          if (!o.supersede) refuse('ALREADY_SETTLED');
        }
        const one = f !== undefined && state === 'pending' ? f : next();
        delete one.tied;
        delete one.deadlineAtMs;
        change(one, {
          state: o.kind === 'resolve' ? 'resolved' : 'rejected',
          ...(o.kind === 'resolve'
            ? { value: String(o.value), contentType: o.contentType, sensitive: o.sensitive }
            : { rejection: o.rejection.code }),
          ...(o.ttlMs !== undefined && { expiresAtMs: s.timeMs + o.ttlMs }),
        });
        return result(false);
      }
      case 'delete': {
        if (f === undefined) return refuse('NOT_FOUND');
        const before = result(false);
        delete s.futures[o.key];
        s.deleted[o.key] = { generation: f.generation, revision: s.revision, atMs: s.timeMs };
        return { ...before, revision: s.revision };
      }
      case 'touch': {
        if (f === undefined) return refuse('NOT_FOUND');
        if (f.state === 'pending' || state === 'expired') return refuse('NO_VALUE');
        if (f.expiresAtMs === s.timeMs + o.ttlMs) return result(true);
        change(f, { expiresAtMs: s.timeMs + o.ttlMs });
        return result(false);
      }
      default:
        return o satisfies never;
    }
  }

  #detach(session: ModelSession): void {
    if (session.at === undefined) return;
    delete session.at;
    session.detachedAtMs = this.s.timeMs;
  }

  #end(id: string): void {
    for (const f of Object.values(this.s.futures)) {
      if (f.tied !== id) continue;
      const late = f.deadlineAtMs !== undefined && f.deadlineAtMs <= this.s.timeMs;
      this.#rejectAlone(f, late ? 'DEADLINE_EXCEEDED' : 'PRODUCER_LOST');
    }
    delete this.s.sessions[id];
  }

  #rejectAlone(f: ModelFuture, rejection: string): void {
    delete f.tied;
    delete f.deadlineAtMs;
    Object.assign(f, { state: 'rejected', rejection, revision: this.s.revision, changedAtMs: this.s.timeMs });
  }

  #forget(): void {
    const { s } = this;
    for (;;) {
      const deleted = Object.values(s.deleted);
      const oldest = deleted.sort((a, b) => a.revision - b.revision)[0];
      if (oldest === undefined) return;
      if (deleted.length <= this.#tombstonesMax && oldest.atMs + this.#tombstoneAgeMs > s.timeMs) return;
      for (const [key, one] of Object.entries(s.deleted)) {
        if (one.revision !== oldest.revision) continue;
        s.floor = Math.max(s.floor, one.generation);
        delete s.deleted[key];
      }
      s.forgottenUpTo = oldest.revision;
    }
  }
}

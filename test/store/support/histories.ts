/** Random histories of a small world, in which everything happens often: four keys, five sessions, two principals. */
import * as fc from 'fast-check';
import type { Operation } from '../../../src/protocol/index.ts';
import type { Command, CommandBody, LogEntry, Store } from '../../../src/store/index.ts';
import { alice, bob, bytes, sessionId } from './cluster-of-one.ts';

export const smallWorld = { clusterId: 'test', sessionsMax: 4, tombstonesMax: 2, tombstoneAgeMs: 120 };

const key = fc.constantFrom('a/x', 'a/y', 'b/x', 'c');
const duration = fc.constantFrom(5, 20, 60, 500);
const optional = <T>(name: string, value: fc.Arbitrary<T>) =>
  fc.option(value, { nil: undefined }).map((one) => (one === undefined ? {} : { [name]: one }));
const preconditions = fc.oneof(
  { weight: 20, arbitrary: fc.constant({}) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 20 }).map((ifRevision) => ({ ifRevision })) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }).map((ifGeneration) => ({ ifGeneration })) },
  { weight: 1, arbitrary: fc.constant({ ifAbsent: true }) },
);
const mostlyNot = fc.integer({ min: 0, max: 3 }).map((number) => number === 0);

const literal = <const T extends string>(kind: T) => fc.constant<T>(kind);

const operation: fc.Arbitrary<Operation> = fc
  .tuple(
    key,
    preconditions,
    fc.oneof(
      fc
        .tuple(
          fc.record({ kind: literal('declare'), renew: mostlyNot, tied: fc.boolean() }),
          optional('deadlineMs', duration),
        )
        .map(([body, deadline]) => ({ ...body, ...deadline })),
      fc
        .tuple(
          fc.record({
            kind: literal('resolve'),
            value: fc.constantFrom(bytes('v'), bytes('w'), bytes('')),
            contentType: fc.constantFrom('text/plain', 'application/json'),
            sensitive: mostlyNot,
            supersede: mostlyNot,
          }),
          optional('ttlMs', duration),
        )
        .map(([body, ttl]) => ({ ...body, ...ttl })),
      fc
        .tuple(
          fc.record({
            kind: literal('reject'),
            rejection: fc.constantFrom({ code: 'NO', message: 'm' }, { code: 'NEVER', message: '' }),
            supersede: mostlyNot,
          }),
          optional('ttlMs', duration),
        )
        .map(([body, ttl]) => ({ ...body, ...ttl })),
      fc.record({ kind: literal('delete') }),
      fc.record({ kind: literal('touch'), ttlMs: duration }),
    ),
  )
  .map(([name, conditions, body]) => ({ key: name, preconditions: conditions, ...body }));

/** A write whose number the leader chooses: the session's next, or one that was used before. */
interface WriteStep {
  readonly kind: 'write';
  readonly session: string;
  readonly principal: string;
  readonly back: number;
  readonly unanswered: number;
  readonly operations: readonly Operation[];
}

const session = fc.integer({ min: 1, max: 5 });
/** Mostly a session's own. */
const principalOf = (number: number, wrong: boolean): string => ((number % 2 === 0) !== wrong ? bob : alice);
const rarely = fc.integer({ min: 0, max: 15 }).map((number) => number === 0);
const connection = fc.integer({ min: 1, max: 2 });

const write = fc
  .record({
    number: fc.integer({ min: 1, max: 3 }),
    wrong: rarely,
    back: fc.oneof(
      { weight: 9, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }) },
    ),
    unanswered: fc.integer({ min: 0, max: 3 }),
    operations: fc.oneof(
      { weight: 3, arbitrary: fc.array(operation, { minLength: 1, maxLength: 1 }) },
      { weight: 1, arbitrary: fc.array(operation, { minLength: 2, maxLength: 5 }) },
    ),
  })
  .map(({ number, wrong, back, unanswered, operations }): WriteStep => ({
    kind: 'write',
    session: sessionId(number),
    principal: principalOf(number, wrong),
    back,
    unanswered,
    operations,
  }));

const open = fc
  .record({
    number: session,
    wrong: rarely,
    resume: rarely,
    graceMs: fc.constantFrom(20, 60, 500),
    connection,
  })
  .map(({ number, wrong, ...rest }): CommandBody => ({
    kind: 'session_open',
    session: sessionId(number),
    principal: principalOf(number, wrong),
    ...rest,
  }));
const detach = fc
  .record({ number: session, connection })
  .map(({ number, connection: from }): CommandBody => ({
    kind: 'session_detach',
    session: sessionId(number),
    connection: from,
  }));
const close = fc.record({ number: session, wrong: rarely }).map(({ number, wrong }): CommandBody => ({
  kind: 'session_close',
  session: sessionId(number),
  principal: principalOf(number, wrong),
}));
const sessions = fc.oneof(
  { weight: 10, arbitrary: open },
  { weight: 3, arbitrary: detach },
  { weight: 1, arbitrary: close },
);
const run = fc.integer({ min: 1, max: 3 });
const member = fc.integer({ min: 1, max: 2 });
const servers = fc.oneof(
  fc.record({
    kind: fc.constant('server_started' as const),
    member,
    run,
    diskId: fc.constant(new Uint8Array(16)),
  }),
  fc.record({ kind: fc.constant('server_lost' as const), member, run }),
  fc.record({
    kind: fc.constant('ticket_keys' as const),
    number: fc.integer({ min: 1, max: 4 }),
    keys: fc.uint8Array({ minLength: 48, maxLength: 48 }),
  }),
);

type Step =
  | WriteStep
  | { readonly kind: 'command'; readonly command: Command }
  /** The same command once more: the last but n. */
  | { readonly kind: 'again'; readonly back: number }
  /** What a leader proposes; `stale`: what it would have proposed some time ago. */
  | { readonly kind: 'expire'; readonly limit: number; readonly stale: boolean };

/** Those that the configuration files name and those that the log adds. */
const anyMember = fc.integer({ min: 1, max: 6 });
const members = fc.oneof(
  fc
    .record({
      least: fc.constantFrom(1, 3, 4),
      name: fc.constantFrom('north', 'south', 'west'),
      peersAddress: fc.constantFrom('north:7422', 'south:7422'),
      replaces: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: anyMember }),
    })
    .map((one): CommandBody => ({ kind: 'member_add', agentsUrl: `wss://${one.name}`, ...one })),
  anyMember.map((one): CommandBody => ({ kind: 'member_promote', member: one })),
  anyMember.map((one): CommandBody => ({ kind: 'member_remove', member: one })),
);
/** A configuration in which most of what the other commands say is about members. */
const configuration = fc
  .tuple(fc.constantFrom([1, 2], [1, 2, 3], [1, 2], [1], [2, 3]), fc.subarray([4, 5, 6, 7, 8]))
  .map(([first, added]) => [...first, ...added]);

const from = (body: fc.Arbitrary<CommandBody>, asked: fc.Arbitrary<number>, its: fc.Arbitrary<number>) =>
  fc.tuple(body, asked, its).map(([what, by, inRun]): Step => ({
    kind: 'command',
    command: { origin: { member: by, run: inRun, request: 1 }, ...what },
  }));
const other = fc.oneof(
  { weight: 9, arbitrary: from(sessions, member, run) },
  { weight: 1, arbitrary: from(servers, member, run) },
  // Of an earlier run they are refused.
  { weight: 3, arbitrary: from(members, anyMember, fc.constantFrom(2, 3, 3, 3)) },
);

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: write },
  { weight: 3, arbitrary: other },
  { weight: 2, arbitrary: fc.nat({ max: 20 }).map((back): Step => ({ kind: 'again', back })) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('expire' as const),
      limit: fc.integer({ min: 1, max: 4 }),
      stale: fc.boolean(),
    }),
  },
);

export interface Turn {
  readonly laterMs: number;
  readonly steps: readonly Step[];
  /** A configuration entry that follows. */
  readonly members: readonly number[] | undefined;
}

/** Time mostly goes on, and goes back when the leader changes. */
export const history: fc.Arbitrary<readonly Turn[]> = fc.array(
  fc.record({
    laterMs: fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 0, max: 25 }) },
      { weight: 1, arbitrary: fc.integer({ min: -50, max: 100 }) },
    ),
    steps: fc.array(step, { minLength: 1, maxLength: 4 }),
    members: fc.option(configuration, { nil: undefined, freq: 9 }),
  }),
  { minLength: 30, maxLength: 90 },
);

/** The entries of a history, made as it goes on: what is due depends on what was applied before. */
export class Leader {
  #nowMs = 1000;
  #commands: Command[] = [];
  #lastRequest = 0;
  readonly #sequences = new Map<string, number>();
  /** Members that ever were, in a configuration or by a command. */
  readonly #seen = new Set<number>();
  readonly #left = new Set<number>();
  #last: readonly number[] = [];
  #lastDue: CommandBody = { kind: 'expire', futures: [], sessions: [] };

  entry(turn: Turn, store: Store): LogEntry {
    this.#nowMs = Math.max(0, this.#nowMs + turn.laterMs);
    const commands = turn.steps.map((one): Command => {
      if (one.kind === 'command') {
        const request = ++this.#lastRequest;
        const { origin, kind } = one.command;
        // Mostly by one that is a member: others are refused.
        const asked = kind.startsWith('member_') && request % 4 !== 0 ? this.#last[0] : undefined;
        return { ...one.command, origin: { ...origin, member: asked ?? origin.member, request } };
      }
      if (one.kind === 'write') return this.#write(one);
      const again = one.kind === 'again' ? this.#commands.at(-1 - one.back) : undefined;
      if (again !== undefined) return again;
      const stale = this.#lastDue;
      if (one.kind === 'expire') this.#lastDue = { kind: 'expire', ...store.due(this.#nowMs, one.limit) };
      return {
        origin: { member: 1, run: 1, request: 1 },
        ...(one.kind === 'expire' && one.stale ? stale : this.#lastDue),
      };
    });
    this.#commands = [...this.#commands, ...commands].slice(-25);
    return { timeMs: this.#nowMs, commands };
  }

  /** As raft's is: who has left does not come back. */
  configuration({ members: chosen }: Turn, store: Store): readonly number[] | undefined {
    const recorded = new Set(store.members.map((one) => one.member));
    for (const one of this.#seen) if (!recorded.has(one)) this.#left.add(one);
    for (const one of this.#last) this.#left.delete(one);
    const members = chosen?.filter((one) => !this.#left.has(one)) ?? [];
    for (const one of [...members, ...recorded]) this.#seen.add(one);
    if (members.length === 0) return undefined;
    this.#last = members;
    return members;
  }

  #write({ session: id, principal, back, unanswered, operations }: WriteStep): Command {
    const next = (this.#sequences.get(id) ?? 0) + 1;
    const sequence = Math.max(1, next - back);
    if (sequence === next) this.#sequences.set(id, next);
    const answeredBelow = Math.max(0, sequence - unanswered);
    const origin = { member: 1, run: 1, request: 1 };
    return { origin, kind: 'write', session: id, principal, sequence, answeredBelow, operations };
  }
}

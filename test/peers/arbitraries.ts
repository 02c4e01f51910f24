import * as fc from 'fast-check';
import { asLogIndex, asMemberId, asTerm } from '../../src/raft/index.ts';
import type { Configuration, Entry, Message, MessageBody, SnapshotPoint } from '../../src/raft/index.ts';
import type { AgentsOrder, NumberedOrder, NumberedOutcome, PeerBatch } from '../../src/peers/index.ts';
import type { PeerFrame, PeerHello } from '../../src/peers/peer-codec.ts';

const whole = fc.oneof(fc.nat({ max: 300 }), fc.maxSafeNat());
const term = whole.map(asTerm);
const index = whole.map(asLogIndex);
const member = fc
  .oneof(
    fc.integer({ min: 1, max: 9 }),
    fc.maxSafeInteger().filter((id) => id > 0),
  )
  .map(asMemberId);
const payload = fc.uint8Array({ maxLength: 60 });
const members = fc
  .uniqueArray(member, { maxLength: 5 })
  .map((ids) => ids.sort((one, other) => (one < other ? -1 : 1)));

const configuration: fc.Arbitrary<Configuration> = fc.record({
  voters: members,
  votersOutgoing: members,
  learners: members,
  learnersNext: members,
  autoLeave: fc.boolean(),
});
const snapshot: fc.Arbitrary<SnapshotPoint> = fc.record({ index, term, configuration });

const kind = <Kind extends string>(value: Kind): fc.Arbitrary<Kind> => fc.constant(value);

const appendRequest = fc
  .record({
    kind: kind('append_request'),
    previousIndex: fc.nat().map(asLogIndex),
    previousTerm: term,
    commit: index,
    entries: fc.array(
      fc.record({
        term,
        kind: fc.constantFrom('empty' as const, 'commands' as const, 'configuration' as const),
        payload,
      }),
      { maxLength: 5 },
    ),
  })
  .map((request) => ({
    ...request,
    entries: request.entries.map((entry, at): Entry => ({
      ...entry,
      index: asLogIndex(request.previousIndex + 1 + at),
    })),
  }));

/** One of each kind: the type of this table makes leaving one out an error. */
const bodies: { readonly [Kind in MessageBody['kind']]: fc.Arbitrary<Extract<MessageBody, { kind: Kind }>> } =
  {
    pre_vote_request: fc.record({
      kind: kind('pre_vote_request'),
      campaignTerm: term,
      lastIndex: index,
      lastTerm: term,
    }),
    pre_vote_response: fc.record({
      kind: kind('pre_vote_response'),
      campaignTerm: term,
      granted: fc.boolean(),
    }),
    vote_request: fc.record({
      kind: kind('vote_request'),
      lastIndex: index,
      lastTerm: term,
      transfer: fc.boolean(),
    }),
    vote_response: fc.record({ kind: kind('vote_response'), granted: fc.boolean() }),
    append_request: appendRequest,
    append_response: fc.record({
      kind: kind('append_response'),
      outcome: fc.oneof(
        fc.record({ accepted: fc.constant(true as const), matchIndex: index }),
        fc.record({
          accepted: fc.constant(false as const),
          rejectedIndex: index,
          hintIndex: index,
          hintTerm: term,
        }),
      ),
    }),
    heartbeat_request: fc.record({
      kind: kind('heartbeat_request'),
      commit: index,
      readRound: whole,
      settledTo: index,
    }),
    heartbeat_response: fc.record({ kind: kind('heartbeat_response'), readRound: whole }),
    install_snapshot: fc.record({ kind: kind('install_snapshot'), snapshot }),
    read_request: fc.record({ kind: kind('read_request'), context: whole }),
    read_response: fc.record({
      kind: kind('read_response'),
      context: whole,
      index: fc.option(index, { nil: undefined }),
    }),
    timeout_now: fc.record({ kind: kind('timeout_now') }),
  };

const message: fc.Arbitrary<Message> = fc
  .tuple(member, member, term, fc.oneof<fc.Arbitrary<MessageBody>[]>(...Object.values(bodies)))
  .map(([from, to, messageTerm, body]) => ({ from, to, term: messageTerm, ...body }));

const text = fc.string({ unit: 'grapheme', maxLength: 20 });

const status = fc.record({
  name: text,
  role: text,
  term: whole,
  commitIndex: whole,
  appliedIndex: whole,
  keys: whole,
  connections: whole,
  version: text,
});

const draining = fc.constantFrom({}, { draining: true as const });

const number = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const graceMs = fc.integer({ min: 1, max: 3_600_000 });

const agentsOrder: fc.Arbitrary<NumberedOrder> = fc.record({
  id: number,
  order: fc.oneof<fc.Arbitrary<AgentsOrder>[]>(
    fc.constant({ kind: 'drain' }),
    fc.record({ kind: fc.constant('drain'), graceMs }),
    fc.constant({ kind: 'admit' }),
    fc.record({
      kind: fc.constant('move'),
      graceMs,
      moves: fc.array(fc.record({ endpoint: fc.constantFrom('', 'wss://a.example:7421'), agents: whole }), {
        maxLength: 3,
      }),
    }),
  ),
});

const agentsOutcome: fc.Arbitrary<NumberedOutcome> = fc.record({
  id: number,
  outcome: fc.record({
    refusal: fc.constantFrom(undefined, 'nowhere to go'),
    agents: whole,
    graceMs: whole,
    leader: fc.option(member, { nil: undefined }),
  }),
});

const batches: fc.Arbitrary<PeerBatch> = fc
  .record({
    raft: fc.array(message, { maxLength: 6 }),
    forward: fc.array(payload, { maxLength: 4 }),
    forwardTerm: whole,
    leaderTimeMs: fc.option(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), { nil: undefined }),
    status: fc.option(
      fc.tuple(status, draining).map(([told, more]) => ({ ...told, ...more })),
      { nil: undefined },
    ),
    transferTo: fc.option(member, { nil: undefined }),
    agentsOrder: fc.option(agentsOrder, { nil: undefined }),
    agentsOutcome: fc.option(agentsOutcome, { nil: undefined }),
  })
  .map(({ leaderTimeMs, status: told, transferTo, agentsOrder: order, agentsOutcome: outcome, ...rest }) => ({
    ...rest,
    ...(leaderTimeMs === undefined ? {} : { leaderTimeMs }),
    ...(told === undefined ? {} : { status: told }),
    ...(transferTo === undefined ? {} : { transferTo }),
    ...(order === undefined ? {} : { agentsOrder: order }),
    ...(outcome === undefined ? {} : { agentsOutcome: outcome }),
  }));

const isEmpty = ({
  raft,
  forward,
  forwardTerm,
  leaderTimeMs,
  status: told,
  transferTo,
  agentsOrder: order,
  agentsOutcome: outcome,
}: PeerBatch): boolean =>
  raft.length + forward.length + forwardTerm + (leaderTimeMs ?? 0) === 0 &&
  told === undefined &&
  transferTo === undefined &&
  order === undefined &&
  outcome === undefined;

const helloOf = (version: fc.Arbitrary<number>) =>
  fc.record({
    clusterId: text,
    from: member,
    to: member,
    run: whole,
    diskId: fc.uint8Array({ minLength: 16, maxLength: 16 }),
    version,
    bulk: fc.boolean(),
  });
const hellos: fc.Arbitrary<PeerHello> = fc.oneof(
  helloOf(fc.constantFrom(0, 1)),
  fc
    .tuple(
      helloOf(fc.oneof(fc.constantFrom(2, 3), fc.integer({ min: 3, max: 0x7fff_ffff }))),
      fc.record(
        { term: whole, lastIndex: whole, founds: fc.constant(true) },
        { requiredKeys: ['term', 'lastIndex'] },
      ),
      fc.constantFrom('a:1', 'server-1.example.com:65535', '127.0.0.1:7422', '[fe80::1]:7422'),
      fc.record({ since: whole, runs: fc.array(whole, { maxLength: 256 }) }),
    )
    .map(([hello, standing, address, lineage]) => ({
      ...hello,
      standing,
      address,
      ...(hello.version >= 3 && { lineage }),
    })),
);

export const frames: fc.Arbitrary<PeerFrame> = fc.oneof(
  {
    weight: 5,
    arbitrary: batches.filter((batch) => !isEmpty(batch)).map((batch) => ({ kind: 'batch' as const, batch })),
  },
  fc.record({ kind: kind('hello'), hello: hellos }),
  fc.record({
    kind: kind('chunk'),
    stream: fc.record({
      term,
      point: snapshot,
      part: fc.record({
        number: whole,
        records: payload,
        checksum: fc.integer({ min: 0, max: 0xffff_ffff }),
        last: fc.boolean(),
        recordsTotal: whole,
      }),
    }),
  }),
  fc.record({ kind: kind('snapshot_refused'), point: snapshot, reason: text }),
  fc.record(
    { kind: kind('hello_refused'), reason: text, removed: fc.boolean(), outdated: fc.constant(true) },
    { requiredKeys: ['kind', 'reason', 'removed'] },
  ),
  fc.record({ kind: kind('empty') }),
);

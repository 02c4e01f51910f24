import { describe, expect, test } from 'vitest';
import { alarmAtMs, initialTransition, transition } from '../../src/client/connection-state.ts';
import type {
  ConnectionEvent,
  ConnectionState,
  Problem,
  Transition,
  World,
} from '../../src/client/connection-state.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { randomOf, welcome } from './support/world.ts';

function worldOf(): World & { nowMs: number; nextEndpoint: World['nextEndpoint'] } {
  let links = 0;
  return {
    nowMs: 0,
    endpointCount: 2,
    connectTimeoutMs: 1_000,
    closeTimeoutMs: 100,
    nextLink: () => (links += 1),
    nextEndpoint: () => (links % 2 === 0 ? 'a' : 'b'),
    backoffMs: (attempt) => 100 * 2 ** attempt,
    comeBackMs: (toldMs) => toldMs + 7,
    spreadMs: (graceMs) => graceMs / 2,
  };
}

const error = new FuturestoreError('UNAVAILABLE', 'it broke');
const retry = { verdict: 'retry', error } as const;
const fatal = { verdict: 'fatal', error } as const;
const refused = { verdict: 'refused', error } as const;

const connecting = (world: World): ConnectionState => initialTransition(world).state;
const connected = (world: World): ConnectionState =>
  transition(connecting(world), { kind: 'welcomed', link: 1, server: welcome }, world).state;
const moving = (world: World): ConnectionState =>
  transition(connected(world), { kind: 'goaway', link: 1, graceMs: 1_000 }, world).state;
const movingOn = (world: World): ConnectionState => transition(moving(world), { kind: 'alarm' }, world).state;
const waiting = (world: World): ConnectionState =>
  transition(connecting(world), { kind: 'lost', link: 1, problem: retry }, world).state;
const closing = (world: World): ConnectionState =>
  transition(connected(world), { kind: 'close', error }, world).state;
const closed = (world: World): ConnectionState =>
  transition(waiting(world), { kind: 'close', error }, world).state;

/** What each event does in each state, on the link that the state calls its own. */
const table = {
  connecting: {
    make: connecting,
    welcomed: 'connected adopt',
    lost: 'waiting orphan',
    goaway: 'connecting',
    alarm: 'waiting terminate,orphan',
    close: 'closed terminate,fail',
    fatal: 'closed fail',
  },
  waiting: {
    make: waiting,
    welcomed: 'waiting',
    lost: 'waiting',
    goaway: 'waiting',
    alarm: 'connecting open',
    close: 'closed fail',
    fatal: 'waiting',
  },
  connected: {
    make: connected,
    welcomed: 'connected',
    lost: 'waiting orphan',
    goaway: 'moving',
    alarm: 'connected',
    close: 'closing close,fail',
    fatal: 'closed fail',
  },
  moving: {
    make: moving,
    welcomed: 'moving',
    lost: 'waiting orphan',
    goaway: 'moving',
    alarm: 'moving open',
    close: 'closing close,fail',
    fatal: 'waiting orphan',
  },
  movingOn: {
    make: movingOn,
    welcomed: 'moving',
    lost: 'connecting orphan',
    goaway: 'moving',
    alarm: 'moving terminate',
    close: 'closing terminate,close,fail',
    fatal: 'connecting orphan',
  },
  closing: {
    make: closing,
    welcomed: 'closing',
    lost: 'closed',
    goaway: 'closing',
    alarm: 'closed terminate',
    close: 'closing',
    fatal: 'closed',
  },
  closed: {
    make: closed,
    welcomed: 'closed',
    lost: 'closed',
    goaway: 'closed',
    alarm: 'closed',
    close: 'closed',
    fatal: 'closed',
  },
} as const;

const events = {
  welcomed: { kind: 'welcomed', link: 1, server: welcome },
  lost: { kind: 'lost', link: 1, problem: retry },
  goaway: { kind: 'goaway', link: 1, graceMs: 1_000 },
  alarm: { kind: 'alarm' },
  close: { kind: 'close', error },
  fatal: { kind: 'lost', link: 1, problem: fatal },
} as const satisfies Record<string, ConnectionEvent>;

const shown = ({ state, effects }: Transition): string =>
  [state.kind, effects.map(({ kind }) => kind).join(',')].join(' ').trim();

describe.each(Object.entries(table))('%s', (_, row) => {
  test.each(Object.entries(events))('%s', (name, event) => {
    const world = worldOf();
    expect(shown(transition(row.make(world), event, world))).toBe(row[name as keyof typeof events]);
  });
});

test('when every endpoint refuses us in its last try, it is over; one that does not keeps it going', () => {
  const world = worldOf();
  let state = connecting(world);
  for (const problem of [refused, retry, refused, retry, refused]) {
    if (state.kind !== 'connecting') throw new Error(`${state.kind} instead of connecting`);
    state = transition(state, { kind: 'lost', link: state.link, problem }, world).state;
    expect(state.kind).toBe('waiting');
    state = transition(state, { kind: 'alarm' }, world).state;
  }
  if (state.kind !== 'connecting') throw new Error(`${state.kind} instead of connecting`);
  expect(transition(state, { kind: 'lost', link: state.link, problem: refused }, world).state.kind).toBe(
    'closed',
  );
});

test('waits grow with each round of all endpoints, not with each endpoint that is gone', () => {
  const world = { ...worldOf(), endpointCount: 3 };
  const waits: number[] = [];
  let state = connecting(world);
  for (let tried = 0; tried < 9; tried += 1) {
    if (state.kind !== 'connecting') throw new Error(`it is ${state.kind}`);
    state = transition(state, { kind: 'lost', link: state.link, problem: retry }, world).state;
    waits.push((alarmAtMs(state) ?? Infinity) - world.nowMs);
    state = transition(state, { kind: 'alarm' }, world).state;
  }
  expect(waits).toEqual([100, 100, 100, 100, 100, 200, 100, 100, 400]);
});

test('an endpoint that says when to come back is not tried before, and holds up nothing where there is another', () => {
  const world = worldOf();
  const asked: (readonly string[])[] = [];
  world.nextEndpoint = (_leaving, full) => {
    asked.push(full);
    return full.includes('a') ? 'b' : 'a';
  };
  const told = { ...retry, retryAfterMs: 5_000 };
  const step = (state: ConnectionState, problem: Problem): ConnectionState => {
    if (state.kind !== 'connecting') throw new Error(`it is ${state.kind}`);
    const waits = transition(state, { kind: 'lost', link: state.link, problem }, world).state;
    world.nowMs = alarmAtMs(waits) ?? Infinity;
    return transition(waits, { kind: 'alarm' }, world).state;
  };
  let state = step(connecting(world), told);
  expect(world.nowMs).toBe(100);
  state = step(state, retry);
  state = step(state, { ...told, retryAfterMs: 60_000 });
  // Both have said when; the first that may be tried again is.
  expect(world.nowMs).toBe(5_007);
  expect(asked).toEqual([[], ['a'], ['a'], ['b']]);
  expect(state).toMatchObject({ kind: 'connecting', endpoint: 'a' });
});

test('suspected refusals count only when all gave them for a while, and never after a welcome', () => {
  const suspected = { verdict: 'suspected', error } as const;
  const run = (world: World, first: ConnectionState, tries: number): string[] => {
    let state = first;
    const kinds: string[] = [];
    for (let index = 0; index < tries; index += 1) {
      if (state.kind === 'waiting') state = transition(state, { kind: 'alarm' }, world).state;
      if (state.kind === 'connecting') {
        state = transition(state, { kind: 'lost', link: state.link, problem: suspected }, world).state;
      }
      kinds.push(state.kind);
    }
    return kinds;
  };
  const world = worldOf();
  // Five rounds of its two endpoints.
  const kinds = run(world, connecting(world), 10);
  expect(kinds.slice(0, 9)).toEqual(Array.from({ length: 9 }, () => 'waiting'));
  expect(kinds[9]).toBe('closed');
  const later = worldOf();
  const lost = transition(connected(later), { kind: 'lost', link: 1, problem: retry }, later).state;
  expect(new Set(run(later, lost, 20))).toEqual(new Set(['waiting']));
});

test('at most two links are open, requests go over one of them, and nothing waits without an alarm', () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const random = randomOf(seed);
    const world = worldOf();
    const open = new Set<number>();
    let serving: number | undefined;
    let current = initialTransition(world);
    for (let step = 0; step < 60; step += 1) {
      for (const effect of current.effects) {
        if (effect.kind === 'open') open.add(effect.link);
        else if (effect.kind === 'close' || effect.kind === 'terminate') open.delete(effect.link);
        else if (effect.kind === 'adopt') serving = effect.link;
        else serving = undefined;
      }
      const { state } = current;
      expect(open.size).toBeLessThanOrEqual(state.kind === 'moving' ? 2 : 1);
      expect(serving).toBe(state.kind === 'connected' || state.kind === 'moving' ? state.link : undefined);
      const alarmless = state.kind === 'connected' || state.kind === 'closed';
      expect(alarmAtMs(state) === undefined).toBe(alarmless);
      const links = [...open];
      const link = links[Math.floor(random() * links.length)] ?? 999;
      const draw = random();
      let event: ConnectionEvent;
      if (draw < 0.3) {
        open.delete(link);
        event = { kind: 'lost', link, problem: random() < 0.1 ? fatal : random() < 0.2 ? refused : retry };
      } else if (draw < 0.6 && link !== serving) event = { kind: 'welcomed', link, server: welcome };
      else if (draw < 0.75) event = { kind: 'goaway', link, graceMs: 1_000 };
      else if (draw < 0.99) {
        world.nowMs = alarmAtMs(state) ?? world.nowMs;
        event = { kind: 'alarm' };
      } else event = { kind: 'close', error };
      current = transition(state, event, world);
    }
  }
});

describe('a server that asks to go and takes us again', () => {
  /** Where is dialed from the goaway on, when nobody takes us. */
  const dialedAfter = (goaway: Partial<ConnectionEvent>, tries: number, retryAfterMs?: number) => {
    const world = { ...worldOf(), endpointCount: 3 };
    let others = 0;
    world.nextEndpoint = (leaving) => (leaving === undefined ? 'a' : ['b', 'c'][(others += 1) % 2]) ?? '';
    const told = { kind: 'goaway', link: 1, graceMs: 1_000, ...goaway } as ConnectionEvent;
    let { state } = transition(connected(world), told, world);
    return Array.from({ length: tries }, () => {
      world.nowMs = alarmAtMs(state) ?? Infinity;
      const dialed = transition(state, { kind: 'alarm' }, world);
      if (dialed.state.kind !== 'moving' || dialed.state.next.kind !== 'connecting')
        throw new Error(`it is ${dialed.state.kind}`);
      const { link, endpoint } = dialed.state.next;
      const problem = { ...retry, ...(endpoint === 'a' && { retryAfterMs }) };
      state = transition(dialed.state, { kind: 'lost', link, problem }, world).state;
      return endpoint;
    });
  };

  test('is gone back to when each other endpoint had its turn, and each time then', () => {
    expect(dialedAfter({ here: true }, 6)).toEqual(['c', 'b', 'a', 'c', 'b', 'a']);
    expect(dialedAfter({ here: true, hint: 'd' }, 4)).toEqual(['d', 'c', 'a', 'b']);
  });

  test('is not gone back to where it did not say so', () => {
    expect(dialedAfter({}, 6)).toEqual(['c', 'b', 'c', 'b', 'c', 'b']);
  });

  test('is not gone back to before it has room', () => {
    expect(dialedAfter({ here: true }, 6, 3_600_000)).toEqual(['c', 'b', 'a', 'c', 'b', 'c']);
  });
});

test('the refusal of an endpoint to which a server has sent it says nothing of its own endpoints', () => {
  const outcomeOf = (hint: { readonly hint?: string }): ConnectionState => {
    const world = { ...worldOf(), endpointCount: 1 };
    const told = transition(connected(world), { kind: 'goaway', link: 1, graceMs: 1_000, ...hint }, world);
    const dialed = transition(told.state, { kind: 'alarm' }, world);
    expect(dialed.effects).toEqual([{ kind: 'open', link: 2, endpoint: hint.hint ?? 'a' }]);
    const alone = transition(dialed.state, { kind: 'lost', link: 1, problem: retry }, world);
    return transition(alone.state, { kind: 'lost', link: 2, problem: refused }, world).state;
  };
  expect(outcomeOf({}).kind).toBe('closed');
  expect(outcomeOf({ hint: 'c' }).kind).toBe('waiting');
});

test('the hint counts once, also when the server that gave it is gone before', () => {
  const world = worldOf();
  const told = transition(connected(world), { kind: 'goaway', link: 1, graceMs: 1_000, hint: 'c' }, world);
  const alone = transition(told.state, { kind: 'lost', link: 1, problem: retry }, world);
  const dialed = transition(alone.state, { kind: 'alarm' }, world);
  expect(dialed.effects).toEqual([{ kind: 'open', link: 2, endpoint: 'c' }]);
  const failed = transition(dialed.state, { kind: 'lost', link: 2, problem: retry }, world);
  expect(transition(failed.state, { kind: 'alarm' }, world).effects).toMatchObject([{ endpoint: 'b' }]);
});

describe('a server that asked to go and is gone before it is left', () => {
  const oneHour = { kind: 'goaway', link: 1, graceMs: 3_600_000 } as const;
  const lost = { kind: 'lost', link: 1, problem: retry } as const;

  test('is replaced as soon as any other that is lost: its grace is no reason to wait without one', () => {
    const world = worldOf();
    const told = transition(connected(world), oneHour, world);
    expect(alarmAtMs(told.state)).toBe(1_800_000);
    world.nowMs = 60_000;
    const alone = transition(told.state, lost, world);
    expect(alone.effects).toEqual([{ kind: 'orphan' }]);
    expect(alarmAtMs(alone.state)).toBe(60_100);
  });

  test('does not put off what was to come sooner', () => {
    const world = { ...worldOf(), spreadMs: () => 50 };
    const told = transition(connected(world), oneHour, world);
    expect(alarmAtMs(transition(told.state, lost, world).state)).toBe(50);
  });

  test('does not have others tried before they have room', () => {
    const world = { ...worldOf(), endpointCount: 1 };
    const problem = { ...retry, retryAfterMs: 10_000 };
    const refusal = transition(connecting(world), { kind: 'lost', link: 1, problem }, world);
    const again = transition(refusal.state, { kind: 'alarm' }, world);
    const back = transition(again.state, { kind: 'welcomed', link: 2, server: welcome }, world);
    const told = transition(back.state, { ...oneHour, link: 2 }, world);
    expect(alarmAtMs(transition(told.state, { ...lost, link: 2 }, world).state)).toBe(10_007);
  });
});

test('a server that asks to go again, and takes us again now, is gone back to', () => {
  const world = { ...worldOf(), endpointCount: 1 };
  world.nextEndpoint = (leaving) => (leaving === 'a' ? 'b' : 'a');
  const told = { kind: 'goaway', link: 1, graceMs: 1_000 } as const;
  const first = transition({ ...connected(world), endpoint: 'a' } as ConnectionState, told, world);
  const again = transition(first.state, { ...told, here: true }, world);
  expect(alarmAtMs(again.state)).toBe(alarmAtMs(first.state));
  expect(transition(again.state, { kind: 'alarm' }, world).effects).toMatchObject([{ endpoint: 'a' }]);
  const elsewhere = transition(first.state, { ...told, link: 7, here: true }, world);
  expect(transition(elsewhere.state, { kind: 'alarm' }, world).effects).toMatchObject([{ endpoint: 'b' }]);
});

/** Every kind of fault: whom it takes, what it does to them, how it ends. */
import { setTimeout as sleep } from 'node:timers/promises';
import { exitCodes } from '../../src/cli/exit-codes.ts';
import { damageSomething, isWorthDamage } from './damage.ts';
import type { Network, Party } from './network.ts';
import type { ChaosServers, End } from './servers.ts';

export interface FaultContext {
  readonly servers: ChaosServers;
  readonly random: () => number;
  readonly electionTimeoutMs: number;
  /** Servers that run and that no other fault has taken. */
  readonly free: readonly number[];
  /** How much of the run is over: 0 to 1. */
  readonly progress: number;
  /** No other fault has the network. */
  readonly networkFree: boolean;
}

export interface FaultPlan {
  readonly servers: readonly number[];
  readonly network?: true;
  readonly target: string;
  /** Ends when the fault is healed; gives what came of it. Throws in words what must not be. */
  run(): Promise<string>;
}

export interface FaultKind {
  readonly name: string;
  /** What it takes, if it isn't there on each machine. */
  readonly needs?: 'network' | 'delay' | 'loss' | 'narrow' | 'disks' | 'replacement';
  /** undefined: not now. */
  plan(context: FaultContext): Promise<FaultPlan | undefined>;
}

const among = <T>(random: () => number, list: readonly T[]): T | undefined =>
  list[Math.floor(random() * list.length)];

const shuffled = <T>(random: () => number, list: readonly T[]): T[] =>
  list
    .map((item) => ({ item, order: random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ item }) => item);

/** From well below one election timeout to five of them. */
const holdMs = ({ random, electionTimeoutMs }: FaultContext): number =>
  Math.round(electionTimeoutMs * (0.2 + 4.8 * random() ** 2));

const some = async (context: FaultContext): Promise<number | undefined> =>
  among(context.random, context.free);

const freeLeader = async ({ servers, free }: FaultContext): Promise<number | undefined> => {
  const leader = await servers.leader();
  return leader !== undefined && free.includes(leader) ? leader : undefined;
};

const majority = async ({ servers, free, random }: FaultContext): Promise<number[] | undefined> => {
  const size = Math.floor(servers.processes.ids.length / 2) + 1;
  return free.length < size ? undefined : shuffled(random, free).slice(0, size);
};

const names = (ids: readonly number[]): string =>
  ids.length === 1 ? `server ${ids[0]}` : `servers ${ids.join(', ')}`;

const killing = (
  name: string,
  choose: (context: FaultContext) => Promise<readonly number[] | number | undefined>,
): FaultKind => ({
  name,
  plan: async (context) => {
    const chosen = await choose(context);
    if (chosen === undefined) return undefined;
    const ids = typeof chosen === 'number' ? [chosen] : chosen;
    const downMs = context.random() < 0.3 ? 0 : holdMs(context);
    return {
      servers: ids,
      target: names(ids),
      run: async () => {
        await Promise.all(ids.map((id) => context.servers.kill(id)));
        await sleep(downMs);
        await Promise.all(ids.map((id) => context.servers.start(id)));
        return `down for ${downMs} ms`;
      },
    };
  },
});

const pausing = (
  name: string,
  choose: (context: FaultContext) => Promise<number | undefined>,
): FaultKind => ({
  name,
  plan: async (context) => {
    const id = await choose(context);
    if (id === undefined) return undefined;
    const pausedMs = holdMs(context);
    return {
      servers: [id],
      target: names([id]),
      run: async () => {
        context.servers.processes.pause(id, 'SIGSTOP');
        await sleep(pausedMs);
        context.servers.processes.pause(id, 'SIGCONT');
        return `stopped for ${pausedMs} ms`;
      },
    };
  },
});

const noticeMs = 20_000;

/** A full disk must end the server, say why, and leave data that it can start with again. */
const diskFull: FaultKind = {
  name: 'disk-full',
  needs: 'disks',
  plan: async (context) => {
    const id = await some(context);
    if (id === undefined) return undefined;
    const { servers } = context;
    const freeBytes = (1 + Math.floor(context.random() * 16)) * 4096;
    return {
      servers: [id],
      target: names([id]),
      run: async () => {
        servers.expectEnd(id);
        await servers.shrinkDisk(id, freeBytes);
        const ended = await servers.ended(id, noticeMs);
        if (!ended) await servers.kill(id);
        const words = servers.lastWords(id);
        await servers.growDisk(id);
        await servers.start(id);
        if (!ended) return `${freeBytes} bytes free were enough for ${noticeMs} ms; killed`;
        if (!/ENOSPC|No space left/i.test(words)) throw new Error(`a full disk was not named: ${words}`);
        return 'ended, said why, came back';
      },
    };
  },
};

/** Where no small disk can be had: a limit on the size of files. */
const fileLimit: FaultKind = {
  name: 'file-limit',
  plan: async (context) => {
    const id = await some(context);
    if (id === undefined) return undefined;
    const { servers } = context;
    const limitBytes = 1024 * 1024 + Math.floor(context.random() * 1024) * 1024;
    return {
      servers: [id],
      target: names([id]),
      run: async () => {
        await servers.kill(id);
        servers.startLimited(id, limitBytes);
        const ended = await servers.ended(id, noticeMs);
        if (!ended) await servers.kill(id);
        const words = servers.lastWords(id);
        await servers.start(id);
        if (!ended) return `${limitBytes} bytes were enough for ${noticeMs} ms; killed`;
        if (!/EFBIG|File too large/i.test(words)) throw new Error(`a full disk was not named: ${words}`);
        return 'ended, said why, came back';
      },
    };
  },
};

const damageFrom = 0.6;
/** A log begins anew with each start and grows with the load. */
const worthWaitMs = 8_000;

/** A damaged server must refuse to start, name what is damaged, and say so again at the next start. */
const damage: FaultKind = {
  name: 'damage',
  plan: async (context) => {
    const { servers, free, random, progress } = context;
    // Without a replacement it is missing from then on: the faults before it are to find all servers.
    if (servers.noReplacement !== undefined && progress < damageFrom) return undefined;
    const minority = Math.floor((servers.processes.ids.length - 1) / 2);
    const id = among(random, free);
    if (id === undefined || servers.away.size >= minority) return undefined;
    return {
      servers: [id],
      target: names([id]),
      run: async () => {
        const endMs = performance.now() + worthWaitMs;
        while (!isWorthDamage(servers.dataDirectory(id)) && performance.now() < endMs) await sleep(100);
        await servers.kill(id);
        const done = damageSomething(servers.dataDirectory(id), random);
        if (done === undefined) {
          await servers.start(id);
          return 'nothing to damage yet; killed and restarted';
        }
        servers.away.add(id);
        const told = `${done.file}: ${done.what}`;
        for (let start = 1; start <= 2; start += 1) {
          const end = await servers.startToEnd(id, noticeMs);
          if (end === undefined) {
            await servers.kill(id);
            throw new Error(`server ${id} started on damaged data (${told})`);
          }
          const words = servers.lastWords(id);
          if (end.code !== exitCodes.unusableData || !/is damaged: /.test(words)) {
            throw new Error(`server ${id} ended with code ${end.code} on damaged data (${told}): ${words}`);
          }
        }
        const named = /is damaged: (.*?)\. Stop this server/.exec(servers.lastWords(id))?.[1] ?? '?';
        if (servers.noReplacement !== undefined) return `${told}; refused: ${named}; stays away`;
        // The others have to go on without it for a while.
        await sleep(holdMs(context));
        await servers.replace(id);
        return `${told}; refused: ${named}; replaced`;
      },
    };
  },
};

/** One that comes back without its disk has forgotten what it promised: nobody may count on it until it is replaced. */
const wipe: FaultKind = {
  name: 'wipe',
  needs: 'replacement',
  plan: async (context) => {
    const { servers, free, random } = context;
    const minority = Math.floor((servers.processes.ids.length - 1) / 2);
    const id = among(random, free);
    if (id === undefined || servers.away.size >= minority) return undefined;
    const heldMs = 4 * context.electionTimeoutMs;
    return {
      servers: [id],
      target: names([id]),
      run: async () => {
        await servers.kill(id);
        servers.away.add(id);
        servers.wipe(id);
        const found: { end?: End | undefined } = {};
        const ending = servers.startToEnd(id, heldMs).then((end) => (found.end = end));
        const endMs = performance.now() + heldMs;
        while (found.end === undefined && performance.now() < endMs) {
          if ((await servers.processes.adminGet(id, '/readyz'))?.status === 200) {
            throw new Error(`server ${id} serves with an empty disk, as if nothing had happened`);
          }
          await sleep(100);
        }
        // A peer that knows its disk for certain has it ended at once; else it is kept out, and runs.
        await ending;
        await servers.kill(id);
        await servers.replace(id);
        return `${found.end === undefined ? `let in by nobody for ${heldMs} ms` : 'found out, and ended'}; replaced`;
      },
    };
  },
};

interface Split {
  readonly shape: string;
  readonly cuts: readonly (readonly [Party, Party])[];
}

const bothWays = (a: Party, b: Party): (readonly [Party, Party])[] => [
  [a, b],
  [b, a],
];

const splitOf = async ({ servers, random }: FaultContext): Promise<Split> => {
  const { ids } = servers.processes;
  const leader = await servers.leader();
  const chosen = (random() < 0.6 ? leader : undefined) ?? among(random, ids) ?? 1;
  const others = ids.filter((id) => id !== chosen);
  const name = chosen === leader ? `the leader (${chosen})` : `server ${chosen}`;
  const shapes: (() => Split)[] = [
    () => ({
      shape: `${name} alone`,
      cuts: [...others, 'clients' as const].flatMap((other) => bothWays(chosen, other)),
    }),
    () => ({ shape: `${name} from the servers`, cuts: others.flatMap((other) => bothWays(chosen, other)) }),
    () => ({ shape: `${name} sends in vain`, cuts: others.map((other) => [chosen, other] as const) }),
    () => ({ shape: `${name} hears nothing`, cuts: others.map((other) => [other, chosen] as const) }),
    () => ({ shape: `${name} from the clients`, cuts: bothWays(chosen, 'clients') }),
    () => {
      const side = shuffled(random, ids).slice(0, Math.floor(ids.length / 2));
      const rest = ids.filter((id) => !side.includes(id));
      return {
        shape: `${side.join(', ')} from ${rest.join(', ')}`,
        cuts: side.flatMap((a) => rest.flatMap((b) => bothWays(a, b))),
      };
    },
    () => {
      // Everyone hears only its neighbours in a ring; with three servers: one line is cut.
      const ring = shuffled(random, ids);
      const apart = ring.flatMap((a, i) =>
        ring
          .slice(i + (ids.length > 3 ? 2 : 1))
          .filter((_, j) => (ids.length === 3 ? i + j === 0 : !(i === 0 && j === ring.length - 3)))
          .map((b) => [a, b] as const),
      );
      return { shape: `a ring ${ring.join('-')}`, cuts: apart.flatMap(([a, b]) => bothWays(a, b)) };
    },
  ];
  return (among(random, shapes) ?? shapes[0] ?? (() => ({ shape: '', cuts: [] })))();
};

const partition: FaultKind = {
  name: 'partition',
  needs: 'network',
  plan: async (context) => {
    const { network } = context.servers;
    if (network === undefined || !context.networkFree) return undefined;
    const { shape, cuts } = await splitOf(context);
    const heldMs = holdMs(context);
    return {
      servers: [],
      network: true,
      target: shape,
      run: async () => {
        for (const [from, to] of cuts) await network.cut(from, to);
        await sleep(heldMs);
        // One after the other and in another order: for a while the shape is any.
        for (const [from, to] of shuffled(context.random, cuts)) await network.join(from, to);
        return `for ${heldMs} ms`;
      },
    };
  },
};

const disturbed = (
  name: string,
  needs: 'delay' | 'loss' | 'narrow',
  disturb: (network: Network, server: number, random: () => number) => Promise<string>,
): FaultKind => ({
  name,
  needs,
  plan: async (context) => {
    const { network, processes } = context.servers;
    if (network === undefined || !context.networkFree) return undefined;
    const everywhere = context.random() < 0.5;
    const ids = everywhere ? processes.ids : shuffled(context.random, processes.ids).slice(0, 1);
    const heldMs = holdMs(context) + context.electionTimeoutMs;
    return {
      servers: [],
      network: true,
      target: names(ids),
      run: async () => {
        const what = new Set<string>();
        for (const id of ids) what.add(await disturb(network, id, context.random));
        await sleep(heldMs);
        for (const id of ids) await network.widen(id);
        return `${[...what].join(', ')} for ${heldMs} ms`;
      },
    };
  },
});

export const faultKinds: readonly FaultKind[] = [
  killing('kill', some),
  killing('kill-leader', freeLeader),
  killing('kill-majority', majority),
  killing('kill-all', async ({ servers, free }) =>
    free.length < servers.present.length ? undefined : servers.present,
  ),
  pausing('pause', some),
  pausing('pause-leader', freeLeader),
  diskFull,
  fileLimit,
  damage,
  wipe,
  partition,
  disturbed('delay', 'delay', async (network, server, random) => {
    const ms = 5 + Math.floor(random() * 100);
    await network.delay(server, ms);
    return `${ms} ms late`;
  }),
  disturbed('loss', 'loss', async (network, server, random) => {
    const percent = 2 + Math.floor(random() * 25);
    await network.lose(server, percent);
    return `${percent} % lost`;
  }),
  disturbed('narrow', 'narrow', async (network, server, random) => {
    const kilobits = 256 + Math.floor(random() * 2000);
    await network.narrow(server, kilobits);
    return `${kilobits} kbit/s`;
  }),
];

/** Why a kind can't be had here; undefined: it can. */
export const missingFor = ({ needs }: FaultKind, servers: ChaosServers): string | undefined => {
  const { network } = servers;
  switch (needs) {
    case undefined:
      return undefined;
    case 'disks':
      return servers.noDisks;
    case 'network':
      return servers.noNetwork;
    case 'replacement':
      return servers.noReplacement;
    case 'delay':
      return network === undefined ? servers.noNetwork : network.noDelay;
    case 'loss':
      return network === undefined ? servers.noNetwork : network.noLoss;
    case 'narrow':
      return network === undefined ? servers.noNetwork : network.noNarrow;
    default:
      return needs satisfies never;
  }
};

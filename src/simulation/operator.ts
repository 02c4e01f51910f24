/**
 * The one who adds, promotes, removes and replaces servers while the cluster runs, through a real client like anybody,
 * and sets up the machines for them. What is asked for is asked again until there is a clear answer. An operator knows
 * which disks are lost, and asks for nothing that would leave too few of the others.
 */
import { Client, FuturestoreError, type NewMember } from '../client/index.ts';
import { protobufCodec } from '../protocol/index.ts';
import { membersOf, type Configuration } from '../raft/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import { clientEnvironment } from './client-environment.ts';
import { Life, type VirtualTime } from './clock.ts';
import type { Machine, MachineMember } from './machine.ts';
import type { Fault } from './plan.ts';
import type { Random } from './random.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export interface OperatorWorld {
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly counts: Counts;
  readonly network: AgentNetwork;
  /** Its number among the agents. */
  readonly agent: number;
  readonly endpoints: readonly string[];
  readonly random: Random;
  readonly machines: readonly Machine[];
  /** The last one that is committed. */
  readonly configuration: () => Configuration | undefined;
  readonly mayBeForgotten: (member: number) => boolean;
  /** A new machine where none is. */
  readonly nextPlace: () => number;
  readonly describe: (place: number) => Omit<MachineMember, 'id'>;
  readonly addMachine: (member: MachineMember) => Machine;
  readonly fail: (check: string, problem: string) => void;
}

type WishOf<Kind extends Fault['kind']> = Extract<Fault, { readonly kind: Kind }>;
export type Wish = WishOf<
  | 'add_member'
  | 'promote_member'
  | 'remove_member'
  | 'replace_member'
  | 'transfer_leader'
  | 'drain_server'
  | 'rebalance'
>;

/** `unsure`: an earlier request may have been taken, though this one is refused. */
type Outcome<Result> =
  | { readonly kind: 'accepted'; readonly result: Result }
  | { readonly kind: 'refused'; readonly message: string; readonly unsure: boolean };

/** More would only make the runs slower. */
const membersMax = 9;
const requestTimeoutMs = 3000;
const againMs = 500;
/** Of a promotion, which waits for the learner. */
const patience = 40;

/** The request may have been lost or taken; it is harmless to ask once more. */
const again = new Set(['UNAVAILABLE', 'TIMED_OUT', 'OUTCOME_UNKNOWN', 'CONNECTION_CLOSED', 'LIMIT_EXCEEDED']);

const majorityOf = (count: number): number => Math.floor(count / 2) + 1;

export class Operator {
  readonly #world: OperatorWorld;
  readonly #client: Client;
  #open = 0;
  /** Whose removal was asked for, unless it was surely refused. */
  readonly #mayLeave = new Set<number>();
  /** Of those whom the last answer refused, though an earlier request may have been taken. */
  readonly #unsure = new Set<number>();
  /** What the cluster has said yes to, by member. */
  readonly #accepted = new Map<number, 'learner' | 'voter'>();
  readonly #removed = new Set<number>();
  /** For whom it has asked: the last one who was to be at an address. */
  readonly #asked = new Map<string, Omit<MachineMember, 'id'>>();
  /** How often its client has connected: it asks again then, by itself. */
  #dials = 0;
  /** Set up by what the servers know, before there was an answer. */
  readonly #found = new Set<number>();
  /** It looks at all servers for members that were never started. */
  #looks = false;

  constructor(world: OperatorWorld) {
    this.#world = world;
    const life = new Life('operator');
    const environment = clientEnvironment(world.network, world.agent, life, world.random, protobufCodec);
    this.#client = new Client(
      { endpoints: world.endpoints, name: 'operator', connectTimeoutMs: 3000 },
      {
        ...environment,
        openSocket: (endpoint, handlers) => {
          this.#dials += 1;
          return environment.openSocket(endpoint, handlers);
        },
      },
    );
  }

  /** Nothing is being asked for. */
  get idle(): boolean {
    return this.#open === 0;
  }

  /** Whether the cluster is asked for it. */
  begin(wish: Wish, target: Machine | undefined): boolean {
    switch (wish.kind) {
      case 'add_member':
        return this.#add(wish);
      case 'promote_member':
        return this.#promoteAny();
      case 'remove_member':
        return target !== undefined && this.#remove(target);
      case 'replace_member':
        return target !== undefined && this.#replace(target, wish);
      case 'transfer_leader':
        this.#transfer(wish.anyone ? undefined : target);
        return true;
      case 'drain_server':
        if (target === undefined) return false;
        this.#drain(target, wish);
        return true;
      case 'rebalance':
        this.#tell('rebalance', (client) =>
          client.rebalance({ graceMs: wish.graceMs, timeoutMs: requestTimeoutMs }),
        );
        return true;
      default:
        return wish satisfies never;
    }
  }

  // ---- what the members could do without ----

  /**
   * Whether those that keep what they had are enough once `machine`, and all others that may be on their way out, are
   * gone; `lost`: its disk will be, instead of its membership.
   */
  couldSpare(machine: Machine, lost: boolean): boolean {
    const { machines, mayBeForgotten } = this.#world;
    const configuration = this.#world.configuration();
    if (configuration === undefined || configuration.votersOutgoing.length > 0) return false;
    // Those who stay may not know yet that others have left, and need the votes of a quorum of old.
    if (lost && !machines.every(({ id }) => mayBeForgotten(id))) return false;
    // It is to take the place of one that leaves: nobody could be asked to go once it is lost.
    const { voters: present, learners } = configuration;
    if (lost && ![...present, ...learners].some((id) => id === machine.id)) return false;
    const damaged = new Set<number>(machines.filter((one) => one.damage !== undefined).map(({ id }) => id));
    if (lost) damaged.add(machine.id);
    const leaving = new Set(this.#mayLeave);
    if (!lost) leaving.add(machine.id);
    // A learner whose disk is lost may be about to vote.
    const voters: readonly number[] = [
      ...configuration.voters,
      ...configuration.learners.filter((id) => damaged.has(id)),
    ];
    const left = voters.filter((id) => damaged.has(id) || !leaving.has(id));
    return [voters, left].every((some) => {
      const sound = some.filter((id) => !damaged.has(id)).length;
      return some.length > 0 && sound >= majorityOf(some.length);
    });
  }

  // ---- requests ----

  #ask<Result>(
    what: string,
    request: (client: Client) => Promise<Result>,
    done: (outcome: Outcome<Result>) => void,
    unsure = false,
  ): void {
    const world = this.#world;
    this.#open += 1;
    const dials = this.#dials;
    world.trace.say(`the operator asks: ${what}`);
    const finish = (outcome: Outcome<Result>): void => {
      this.#open -= 1;
      world.counts.add(`${what.split(' ')[0] ?? ''} member: ${outcome.kind}`);
      const text = outcome.kind === 'accepted' ? `yes (${String(outcome.result)})` : outcome.message;
      world.trace.say(`the operator was answered: ${what}: ${text}`);
      done(outcome);
    };
    request(this.#client).then(
      (result) => finish({ kind: 'accepted', result }),
      (error: unknown) => {
        if (!(error instanceof FuturestoreError)) {
          world.fail('operator', `${what}: ${String(error)}`);
        } else if (error.code === 'MEMBERSHIP_REFUSED') {
          // A client that had to connect anew has asked twice: the answer may be to what the first time has done, also
          // where another server says so that has not heard of it.
          const isDone = /has left the cluster|being removed|is no member|was asked for before/.test(
            error.message,
          );
          const isSecond = this.#dials > dials;
          finish({ kind: 'refused', message: error.message, unsure: unsure || isDone || isSecond });
        } else if (again.has(error.code)) {
          world.time.after(againMs, world.time.world, 'input', () => {
            this.#open -= 1;
            this.#ask(what, request, done, true);
          });
        } else world.fail('operator', `${what}: ${error.code}: ${error.message}`);
      },
    );
  }

  /** `then` is called when the machine is there. */
  #askToAdd(
    member: Omit<MachineMember, 'id'>,
    replaces: number | undefined,
    startAfterMs: number,
    done: (machine: Machine | undefined) => void,
    tries = patience,
  ): void {
    const world = this.#world;
    const { name, peersAddress, agentsUrl } = member;
    const newMember = { name, peersAddress, agentsUrl, ...(replaces !== undefined && { replaces }) };
    const what = replaces === undefined ? `add ${name}` : `replace ${replaces} by ${name}`;
    this.#asked.set(peersAddress, member);
    this.#ask(
      what,
      (client) => this.#addOrFind(client, newMember),
      (outcome) => {
        if (outcome.kind === 'refused') {
          if (outcome.unsure && tries > 1 && !this.#looks) {
            // Another server may know more than the one that was asked.
            world.network.reset((agent) => agent === world.agent);
            this.#later(() => this.#askToAdd(member, replaces, startAfterMs, done, tries - 1));
            return;
          }
          if (replaces !== undefined) this.#stays(replaces, outcome.unsure);
          done(undefined);
          return;
        }
        const id = outcome.result;
        this.#accepted.set(id, replaces === undefined ? 'learner' : 'voter');
        if (replaces !== undefined) this.#removed.add(replaces);
        const there = world.machines.find((machine) => machine.id === id);
        if (there !== undefined && this.#found.delete(id)) {
          done(there);
          return;
        }
        if (there !== undefined) {
          world.fail('ids of members', `${name} was given the id ${id}, which another server has`);
          return;
        }
        const machine = world.addMachine({ ...member, id });
        world.time.after(startAfterMs, world.time.world, 'input', () => machine.start());
        done(machine);
      },
      tries < patience,
    );
  }

  /**
   * What was not answered may have been taken, and the cluster may need the new server before it can answer anything:
   * any server's list says what its id is.
   */
  async #addOrFind(client: Client, member: NewMember): Promise<number> {
    try {
      return await client.addMember(member, { timeoutMs: requestTimeoutMs });
    } catch (error) {
      const mayBeTaken =
        error instanceof FuturestoreError && (again.has(error.code) || error.code === 'MEMBERSHIP_REFUSED');
      if (!mayBeTaken) throw error;
      const { members } = await client.members({ timeoutMs: requestTimeoutMs });
      const known = new Set(this.#world.machines.map(({ id }) => id).filter((id) => !this.#found.has(id)));
      const found = members.find(({ id, name }) => name === member.name && !known.has(id));
      if (found === undefined) throw error;
      return found.id;
    }
  }

  #count(): number {
    const configuration = this.#world.configuration();
    return (configuration === undefined ? 0 : membersOf(configuration).length) + this.#open;
  }

  #isMember(machine: Machine): boolean {
    const configuration = this.#world.configuration();
    return configuration !== undefined && membersOf(configuration).some((id) => id === machine.id);
  }

  #mayAskToLeave(machine: Machine): boolean {
    return !this.#mayLeave.has(machine.id) && this.#isMember(machine) && this.couldSpare(machine, false);
  }

  #add({ promote, startAfterMs }: WishOf<'add_member'>): boolean {
    if (this.#count() >= membersMax) return false;
    const world = this.#world;
    this.#askToAdd(world.describe(world.nextPlace()), undefined, startAfterMs, (machine) => {
      if (machine !== undefined && promote) this.#promote(machine.id, patience);
    });
    return true;
  }

  #promoteAny(): boolean {
    const [learner] = this.#world.configuration()?.learners ?? [];
    return learner !== undefined && this.#promote(learner, 1);
  }

  #promote(member: number, tries: number): boolean {
    if (this.#mayLeave.has(member)) return false;
    this.#ask(
      `promote ${member}`,
      (client) => client.promoteMember(member, { timeoutMs: requestTimeoutMs }),
      (outcome) => {
        if (outcome.kind === 'accepted') this.#accepted.set(member, 'voter');
        else if (tries > 1) this.#later(() => void this.#promote(member, tries - 1));
      },
    );
    return true;
  }

  /** Not idle meanwhile. */
  #later(work: () => void): void {
    const { time } = this.#world;
    this.#open += 1;
    time.after(againMs, time.world, 'input', () => {
      this.#open -= 1;
      work();
    });
  }

  #remove(machine: Machine, done: (accepted: boolean) => void = () => undefined): boolean {
    const { id } = machine;
    if (!this.#mayAskToLeave(machine)) return false;
    this.#mayLeave.add(id);
    this.#ask(
      `remove ${id}`,
      (client) => client.removeMember(id, { timeoutMs: requestTimeoutMs }),
      (outcome) => {
        if (outcome.kind === 'accepted') this.#removed.add(id);
        else this.#stays(id, outcome.unsure);
        done(outcome.kind === 'accepted');
      },
    );
    return true;
  }

  /** It was refused to let it go. */
  #stays(id: number, unsure: boolean): void {
    if (unsure) this.#unsure.add(id);
    else this.#mayLeave.delete(id);
  }

  #replace(
    machine: Machine,
    { how, startAfterMs }: Pick<WishOf<'replace_member'>, 'how' | 'startAfterMs'>,
  ): boolean {
    const world = this.#world;
    if (!this.#mayAskToLeave(machine)) return false;
    const { id, member } = machine;
    let next = world.describe(world.nextPlace());
    // Where the lost one was: that one must be gone from there.
    if (how === 'in_place' && machine.damage !== undefined) {
      machine.refused = true;
      machine.crash({ silent: false, keepSome: false });
      next = { ...member, join: true };
    } else if (how !== 'new') next = { ...next, name: member.name };
    this.#mayLeave.add(id);
    this.#askToAdd(next, id, startAfterMs, () => undefined);
    return true;
  }

  #transfer(target: Machine | undefined): void {
    this.#open += 1;
    const world = this.#world;
    const to = target === undefined ? {} : { to: target.id };
    const end = (outcome: string): void => {
      this.#open -= 1;
      world.counts.add(`transfer leader: ${outcome}`);
    };
    this.#client.transferLeader({ ...to, timeoutMs: 2 * requestTimeoutMs }).then(
      () => end('done'),
      (error: unknown) => {
        const code = error instanceof FuturestoreError ? error.code : String(error);
        if (code !== 'MEMBERSHIP_REFUSED' && !again.has(code))
          world.fail('operator', `a transfer of leadership failed with ${String(error)}`);
        end(code);
      },
    );
  }

  #drain({ id }: Machine, { graceMs, end }: Pick<WishOf<'drain_server'>, 'graceMs' | 'end'>): void {
    this.#tell(end ? 'end of a drain' : 'drain', (client) =>
      client.drainServer(id, { ...(end ? { end } : { graceMs }), timeoutMs: requestTimeoutMs }),
    );
  }

  /** Whatever comes of it is well, as long as it is one of the answers that there are. */
  #tell(what: string, request: (client: Client) => Promise<unknown>): void {
    this.#open += 1;
    const world = this.#world;
    const end = (outcome: string): void => {
      this.#open -= 1;
      world.counts.add(`${what}: ${outcome}`);
    };
    request(this.#client).then(
      () => end('done'),
      (error: unknown) => {
        const code = error instanceof FuturestoreError ? error.code : String(error);
        if (code !== 'DRAIN_REFUSED' && !again.has(code)) world.fail('operator', `${what}: ${String(error)}`);
        end(code);
      },
    );
  }

  // ---- after the healing ----

  /** Where nobody takes agents not even an operator gets in: a restart ends a drain, too. */
  endDrains(): void {
    const { machines } = this.#world;
    const running = machines.filter(({ process }) => process !== undefined);
    const drained = running.filter(({ process }) => process?.server.status().draining === true);
    const [first] = drained;
    if (first !== undefined && drained.length === running.length) {
      this.#world.counts.add('drain: ended by a restart');
      first.stop(100, () => first.start());
      return;
    }
    for (const machine of drained) this.#drain(machine, { graceMs: 1, end: true });
  }

  /** Replaces or removes all whose disk was lost, until there is none. */
  cleanUp(): void {
    const configuration = this.#world.configuration();
    if (configuration === undefined) return;
    for (const machine of this.#world.machines) {
      if (machine.damage === undefined) continue;
      if (this.#unsure.has(machine.id) && this.#isWantedByAll(machine.id)) {
        this.#unsure.delete(machine.id);
        this.#mayLeave.delete(machine.id);
      }
      if (this.#mayLeave.has(machine.id)) continue;
      if (configuration.learners.some((id) => id === machine.id)) this.#remove(machine);
      else if (this.#isMember(machine)) this.#replace(machine, { how: 'in_place', startAfterMs: 100 });
    }
  }

  /** No earlier request to let it go was taken by any server, nor is one under way. */
  #isWantedByAll(id: number): boolean {
    return this.#world.machines.every(({ process }) => {
      if (process === undefined) return true;
      const { members } = process.server.inspect().store;
      const isWanted = members.every(({ member, wanted }) => member !== id || wanted !== 'removed');
      return isWanted && process.server.status().pendingCommands === 0;
    });
  }

  /**
   * Starts whom any server counts, or is to count, as a member, and nobody has set up: its wish was taken, and the
   * answer lost. The cluster may need it before it can answer anything.
   */
  startForgotten(): void {
    this.#looks = true;
    const { machines, trace, counts, addMachine } = this.#world;
    for (const { process } of machines) {
      if (process === undefined) continue;
      const { raft, store } = process.server.inspect();
      const counted: readonly number[] = membersOf(raft.status().configuration);
      for (const { member: id, wanted, peersAddress } of store.members) {
        if (machines.some((machine) => machine.id === id)) continue;
        if (wanted === 'removed' && !counted.includes(id)) continue;
        const member = this.#asked.get(peersAddress);
        if (member === undefined) continue;
        trace.say(`the operator finds member ${id}, which has never been started`);
        counts.add('add member: found in the list');
        this.#found.add(id);
        addMachine({ ...member, id }).start();
      }
    }
  }

  /** What was accepted has become true. `problem`: the first that is not. */
  problem(configuration: Configuration): string | undefined {
    const members: readonly number[] = membersOf(configuration);
    for (const id of this.#removed) if (members.includes(id)) return `member ${id} was to be removed`;
    for (const [id, as] of this.#accepted) {
      if (this.#mayLeave.has(id)) continue;
      if (!members.includes(id)) return `member ${id} was added, and is none`;
      const lost = this.#world.machines.some((one) => one.id === id && one.damage !== undefined);
      if (as === 'voter' && !lost && !configuration.voters.some((voter) => voter === id))
        return `member ${id} was to vote`;
    }
    return undefined;
  }
}

import {
  describeMessage,
  emptyConfiguration,
  initialConfiguration,
  membersOf,
  Raft,
  asLogIndex,
  asMemberId,
  asTerm,
} from '../../../src/raft/index.ts';
import type {
  Configuration,
  DropReason,
  Entry,
  Input,
  LogIndex,
  MemberId,
  Message,
  MessageBody,
  RaftOptions,
  RaftStatus,
  Ready,
  SnapshotPoint,
  Term,
} from '../../../src/raft/index.ts';
import { ScriptedDisk } from './disk.ts';
import { ListMachine } from './machine.ts';
import type { Machine } from './machine.ts';
import { seededRandom } from './random.ts';
import { SafetyChecks, SafetyViolation } from './safety.ts';

type Tuning = Partial<Omit<RaftOptions, 'id' | 'hardState' | 'snapshot' | 'entries' | 'applied' | 'random'>>;

export interface ClusterOptions<M extends Machine> {
  /** Voters 1..n. */
  readonly voters: number;
  /** After the voters. */
  readonly learners?: number;
  readonly seed?: number;
  /** Instead of the seed: what the cores draw from. */
  readonly random?: () => number;
  readonly tuning?: Tuning;
  readonly machine: () => M;
}

interface Node<M extends Machine> {
  readonly id: MemberId;
  readonly disk: ScriptedDisk;
  /** As of the last check. */
  commit: number;
  machine: M;
  /** undefined: crashed. */
  raft: Raft | undefined;
  /** true: what is given out to be applied waits in `unapplied`. */
  holdsApply: boolean;
  unapplied: Entry[];
}

/** A message under way; a snapshot's with the state that the server would have streamed. */
export interface Packet {
  readonly message: Message;
  readonly state?: Uint8Array;
}

export type ReadOutcome =
  | { readonly kind: 'index'; readonly index: LogIndex }
  | { readonly kind: 'dropped'; readonly reason: DropReason };

type Verdict = 'pass' | 'hold' | 'drop';

/** More turns than any script needs: beyond them two members answer each other for ever. */
const settleTurnsMax = 20_000;

/**
 * Cores with scripted disks and a scripted network: no time passes and nothing moves unless the script says so.
 * Every safety check runs after every step.
 */
export class ScriptedCluster<M extends Machine> {
  readonly safety: SafetyChecks;
  /** Every message that left a member, oldest first. */
  readonly sent: Message[] = [];
  readonly dropped = new Map<number, DropReason>();
  readonly reads = new Map<number, ReadOutcome>();
  /** Under way, oldest first. */
  packets: Packet[] = [];
  /** Kept by the filter until they are released. */
  held: Packet[] = [];
  /** What happens to a message that leaves. */
  filter: (message: Message) => Verdict = () => 'pass';
  /** At the beginning. */
  readonly configuration: Configuration;
  readonly #nodes = new Map<MemberId, Node<M>>();
  readonly #blocked = new Set<string>();
  readonly #readFloors = new Map<number, number>();
  readonly #options: ClusterOptions<M>;
  readonly #random: () => number;
  #token = 0;

  constructor(options: ClusterOptions<M>) {
    this.#options = options;
    this.#random = options.random ?? seededRandom(options.seed ?? 1);
    const ids = Array.from({ length: options.voters + (options.learners ?? 0) }, (_, i) => asMemberId(i + 1));
    this.configuration = {
      ...initialConfiguration(ids.slice(0, options.voters)),
      learners: ids.slice(options.voters),
    };
    this.safety = new SafetyChecks(this.configuration);
    for (const id of ids) this.#install(id, this.configuration);
  }

  get ids(): MemberId[] {
    return [...this.#nodes.keys()];
  }
  get aliveIds(): MemberId[] {
    return this.ids.filter((id) => this.#node(id).raft !== undefined);
  }

  disk(id: number): ScriptedDisk {
    return this.#node(id).disk;
  }
  machine(id: number): M {
    return this.#node(id).machine;
  }
  status(id: number): RaftStatus {
    return this.#raft(id).status();
  }
  configurationAt(id: number, index: number): Configuration {
    return this.#raft(id).configurationAt(asLogIndex(index));
  }
  isUp(id: number): boolean {
    return this.#node(id).raft !== undefined;
  }

  /** The leader of the greatest term, if anybody leads. */
  leader(): MemberId | undefined {
    const leaders = this.aliveIds.map((id) => this.status(id)).filter(({ role }) => role === 'leader');
    return leaders.sort((a, b) => b.term - a.term)[0]?.id;
  }

  /** A new server with an empty disk, that waits to be added. Nothing happens if there is one with this id. */
  join(...ids: readonly number[]): void {
    for (const id of ids) {
      if (!this.#nodes.has(asMemberId(id))) this.#install(asMemberId(id), emptyConfiguration);
    }
  }

  // Inputs. What follows from them is queued; `settle` moves it.

  step(id: number, input: Input): void {
    const node = this.#node(id);
    this.#raft(id).step(input);
    this.#check(node);
    this.#drain(node);
  }

  tick(id: number, count = 1): void {
    for (let i = 0; i < count; i += 1) this.step(id, { kind: 'tick' });
  }

  /** Ticks everybody, and lets everything arrive after each tick. */
  run(ticks: number): void {
    for (let i = 0; i < ticks; i += 1) {
      for (const id of this.aliveIds) this.tick(id);
      this.settle();
    }
  }

  /** As if this message had arrived. */
  inject(from: number, to: number, term: number, body: MessageBody): void {
    const message: Message = { from: asMemberId(from), to: asMemberId(to), term: asTerm(term), ...body };
    this.step(to, { kind: 'message', message });
  }

  proposeMany(id: number, texts: readonly string[]): number[] {
    const proposals = texts.map((text) => ({ token: this.#nextToken(), payload: Buffer.from(text) }));
    this.step(id, { kind: 'propose', proposals });
    return proposals.map(({ token }) => token);
  }

  propose(id: number, text: string): number {
    return this.proposeMany(id, [text])[0] ?? 0;
  }

  /** Asks this member to make these the members. */
  change(id: number, voters: readonly number[], learners: readonly number[] = []): number {
    const token = this.#nextToken();
    const members = { voters: voters.map(asMemberId), learners: learners.map(asMemberId) };
    this.step(id, { kind: 'change_configuration', token, ...members });
    return token;
  }

  read(id: number): number {
    const token = this.#nextToken();
    this.#readFloors.set(token, this.safety.commitMax);
    this.step(id, { kind: 'read_index', token });
    return token;
  }

  /** Makes it campaign, and it must win. */
  elect(id: number): void {
    this.step(id, { kind: 'campaign' });
    this.settle();
    if (this.status(id).role !== 'leader') {
      throw new Error(`${id} did not become leader: ${this.trace().slice(-30).join('\n')}`);
    }
  }

  // Disks and processes.

  /** Completes up to `count` writes under way, and tells the core. */
  completeWrites(id: number, count = Number.POSITIVE_INFINITY): void {
    const node = this.#node(id);
    for (let i = 0; i < count && this.#completeOne(node); i += 1);
  }

  /** Moves writes to disk without telling the core. */
  completeWriteSilently(id: number): void {
    this.#complete(this.#node(id));
  }

  holdApply(id: number): void {
    this.#node(id).holdsApply = true;
  }

  releaseApply(id: number): void {
    const node = this.#node(id);
    node.holdsApply = false;
    const entries = node.unapplied;
    node.unapplied = [];
    this.#apply(node, entries);
    this.#drain(node);
  }

  crash(id: number, survivors = 0): void {
    const node = this.#node(id);
    node.raft = undefined;
    node.unapplied = [];
    node.holdsApply = false;
    node.disk.crash(survivors);
  }

  restart(id: number): void {
    const node = this.#node(id);
    const { hardState, base, entries, state } = node.disk.durable;
    node.machine = this.#options.machine();
    node.machine.restore(state.bytes);
    node.commit = 0;
    node.raft = new Raft({
      ...this.#options.tuning,
      id: node.id,
      hardState,
      snapshot: base,
      entries: [...entries],
      applied: state.index,
      random: this.#random,
    });
    this.#check(node);
    this.#drain(node);
  }

  /** Saves the state as of now, and forgets the log up to `index` (default: all that is applied). */
  compact(id: number, index?: number): void {
    const node = this.#node(id);
    const status = this.status(id);
    const upTo = asLogIndex(index ?? status.applied);
    if (upTo < status.firstIndex) return;
    const term = node.disk.durable.termAt(upTo);
    if (term === undefined) throw new Error(`${id} cannot compact up to ${upTo}: it is not on its disk`);
    const base = { index: upTo, term, configuration: this.#raft(id).configurationAt(upTo) };
    node.disk.compact(base, { index: status.applied, bytes: node.machine.snapshot() });
    this.step(id, { kind: 'compact', index: upTo });
  }

  // The network.

  block(from: number, to: number): void {
    this.#blocked.add(`${from}>${to}`);
  }
  cut(a: number, b: number): void {
    this.block(a, b);
    this.block(b, a);
  }
  isolate(id: number): void {
    for (const other of this.ids) if (other !== id) this.cut(id, other);
  }
  heal(): void {
    this.#blocked.clear();
    this.filter = () => 'pass';
  }

  /** Sends on what the filter kept, those that match or all. */
  release(match: (message: Message) => boolean = () => true): void {
    const going = this.held.filter(({ message }) => match(message));
    this.held = this.held.filter(({ message }) => !match(message));
    this.packets.push(...going);
  }

  /** Delivers (or loses, where the way is blocked) the packet at this place in the queue. */
  deliver(at = 0): void {
    for (const packet of this.packets.splice(at, 1)) this.#arrive(packet);
  }

  lose(at: number): void {
    for (const packet of this.packets.splice(at, 1)) this.#lost(packet);
  }

  /** Until nothing moves: automatic writes are completed, everything under way arrives. */
  settle(): void {
    for (let turn = 0; turn < settleTurnsMax; turn += 1) {
      let moved = false;
      for (const node of this.#nodes.values()) {
        if (node.disk.automatic) while (this.#completeOne(node)) moved = true;
      }
      if (this.packets.length > 0) {
        moved = true;
        this.deliver();
      }
      if (!moved) return;
    }
    throw new Error(`the cluster does not settle:\n${this.trace().slice(-30).join('\n')}`);
  }

  trace(): string[] {
    return this.sent.map(describeMessage);
  }

  sentOf<Kind extends Message['kind']>(kind: Kind, from?: number): Extract<Message, { kind: Kind }>[] {
    return this.sent.filter(
      (message): message is Extract<Message, { kind: Kind }> =>
        message.kind === kind && (from === undefined || message.from === from),
    );
  }

  /** Everything works from now on: the cluster must come to one leader, one log and one state. */
  convergeOrFail(ticksMax = 200): void {
    this.heal();
    this.release();
    for (const id of this.ids) {
      this.disk(id).automatic = true;
      if (!this.isUp(id)) this.restart(id);
      this.releaseApply(id);
    }
    this.settle();
    for (let ticks = 0; ticks < ticksMax; ticks += 1) {
      this.run(1);
      if (this.#hasConverged()) return;
    }
    const states = this.ids.map((id) => JSON.stringify(this.status(id)));
    throw new Error(
      `no convergence after ${ticksMax} ticks:\n${states.join('\n')}\n${this.trace().slice(-40).join('\n')}`,
    );
  }

  #hasConverged(): boolean {
    const leader = this.leader() === undefined ? undefined : this.status(this.leader() ?? 0);
    if (leader === undefined || leader.transferTarget !== undefined) return false;
    if (leader.changePending || !leader.changeSettled) return false;
    const statuses = membersOf(leader.configuration).map((id) => this.status(id));
    if (this.disk(leader.id).handed.termAt(leader.commit) !== leader.term) return false;
    return statuses.every(
      (status) =>
        status.leader === leader.id &&
        status.term === leader.term &&
        status.applied === leader.lastIndex &&
        status.lastIndex === leader.lastIndex &&
        !status.changePending &&
        this.machine(status.id).digest() === this.machine(leader.id).digest(),
    );
  }

  #install(id: MemberId, configuration: Configuration): void {
    const machine = this.#options.machine();
    const base: SnapshotPoint = { index: asLogIndex(0), term: asTerm(0), configuration };
    const disk = new ScriptedDisk(base, machine.snapshot());
    this.#nodes.set(id, {
      id,
      disk,
      commit: 0,
      machine,
      raft: undefined,
      holdsApply: false,
      unapplied: [],
    });
    this.restart(id);
  }

  #diskOf = (id: MemberId): ScriptedDisk | undefined => this.#nodes.get(id)?.disk;

  #node(id: number): Node<M> {
    const node = this.#nodes.get(asMemberId(id));
    if (node === undefined) throw new Error(`there is no member ${id}`);
    return node;
  }

  #raft(id: number): Raft {
    const { raft } = this.#node(id);
    if (raft === undefined) throw new Error(`member ${id} has crashed`);
    return raft;
  }

  #nextToken(): number {
    this.#token += 1;
    return this.#token;
  }

  #check(node: Node<M>): void {
    if (node.raft === undefined) return;
    node.raft.checkInvariants();
    const status = node.raft.status();
    this.safety.counted(status, this.#diskOf);
    if (status.role === 'leader' && status.commit > node.commit) {
      this.safety.decided(status, this.#diskOf);
    }
    node.commit = status.commit;
    this.safety.committed(status.commit);
  }

  #drain(node: Node<M>): void {
    const { raft } = node;
    if (raft === undefined) return;
    for (let turn = 0; turn < settleTurnsMax; turn += 1) {
      const ready = raft.ready();
      if (ready === undefined) return;
      this.#check(node);
      this.#perform(node, raft, ready);
    }
    throw new Error(`${node.id} always has something to do:\n${this.trace().slice(-10).join('\n')}`);
  }

  #perform(node: Node<M>, raft: Raft, ready: Ready): void {
    for (const message of ready.send) this.#send(node, { message });
    if (ready.persist !== undefined) {
      this.safety.wrote(node.id, ready.persist, node.disk.handed);
      node.disk.write(ready.persist);
    }
    if (ready.apply !== undefined) {
      if (node.holdsApply) node.unapplied.push(...ready.apply.entries);
      else this.#apply(node, ready.apply.entries);
    }
    for (const { token, index } of ready.reads) this.#finishRead(token, { kind: 'index', index });
    for (const { kind, token, reason } of ready.dropped) {
      if (kind === 'read') this.#finishRead(token, { kind: 'dropped', reason });
      else if (this.dropped.has(token)) throw new SafetyViolation(`${kind} ${token} was dropped twice`);
      else this.dropped.set(token, reason);
    }
    for (const { to, term } of ready.snapshots) this.#streamSnapshot(node, raft, to, term);
    if (ready.soft?.role === 'leader') this.safety.led(raft.status(), node.disk.handed);
  }

  #apply(node: Node<M>, entries: readonly Entry[]): void {
    for (const entry of entries) {
      this.safety.applied(node.id, entry, this.#diskOf);
      node.machine.apply(entry);
    }
    const last = entries.at(-1);
    if (last === undefined) return;
    this.safety.reached(node.id, last.index, node.machine.digest());
    node.raft?.step({ kind: 'applied', index: last.index });
    this.#check(node);
  }

  #finishRead(token: number, outcome: ReadOutcome): void {
    if (this.reads.has(token)) throw new SafetyViolation(`read ${token} ended twice`);
    this.reads.set(token, outcome);
    const floor = this.#readFloors.get(token) ?? 0;
    if (outcome.kind === 'index' && outcome.index < floor) {
      throw new SafetyViolation(
        `stale read: ${token} got index ${outcome.index}, ${floor} was committed before it`,
      );
    }
  }

  #streamSnapshot(node: Node<M>, raft: Raft, to: MemberId, term: Term): void {
    const { applied, configuration } = raft.status();
    const appliedTerm = node.disk.durable.termAt(applied);
    if (appliedTerm === undefined) throw new Error(`${node.id} has no term for its applied index ${applied}`);
    const snapshot = { index: applied, term: appliedTerm, configuration };
    const message: Message = { from: node.id, to, term, kind: 'install_snapshot', snapshot };
    this.#send(node, { message, state: node.machine.snapshot() });
  }

  #send(node: Node<M>, packet: Packet): void {
    const { message } = packet;
    if (message.from !== node.id)
      throw new SafetyViolation(`${node.id} sends in another's name: ${describeMessage(message)}`);
    this.safety.sent(message, node.disk);
    this.sent.push(message);
    const verdict = this.filter(message);
    if (verdict === 'pass') this.packets.push(packet);
    else if (verdict === 'hold') this.held.push(packet);
    else this.#lost(packet);
  }

  #arrive(packet: Packet): void {
    const { message, state } = packet;
    const node = this.#node(message.to);
    if (node.raft === undefined || this.#blocked.has(`${message.from}>${message.to}`))
      return this.#lost(packet);
    if (state !== undefined && message.kind === 'install_snapshot')
      node.disk.stage(message.snapshot.index, state);
    this.step(message.to, { kind: 'message', message });
    if (state !== undefined) this.#streamEnded(message, true);
  }

  #lost({ message, state }: Packet): void {
    if (state !== undefined) this.#streamEnded(message, false);
  }

  #streamEnded(message: Message, ok: boolean): void {
    if (this.isUp(message.from)) this.step(message.from, { kind: 'snapshot_sent', peer: message.to, ok });
  }

  #complete(node: Node<M>): ReturnType<ScriptedDisk['complete']> {
    const persist = node.disk.complete();
    if (persist?.snapshot !== undefined) node.machine.restore(node.disk.durable.state.bytes);
    return persist;
  }

  #completeOne(node: Node<M>): boolean {
    const persist = this.#complete(node);
    if (persist === undefined) return false;
    for (const message of persist.afterDurable) this.#send(node, { message });
    this.step(node.id, { kind: 'persisted', sequence: persist.sequence });
    return true;
  }
}

/** A cluster of voters over plain lists. */
export const listCluster = (
  voters: number,
  options: Omit<ClusterOptions<ListMachine>, 'voters' | 'machine'> = {},
): ScriptedCluster<ListMachine> =>
  new ScriptedCluster({ voters, machine: () => new ListMachine(), ...options });

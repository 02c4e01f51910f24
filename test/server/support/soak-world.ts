/** The world of the soak test: a cluster with its agents, what happens to it, and what must hold in the end. */
import type { ServerCluster } from './server-cluster.ts';
import { Reader, Subscriber, Waiter, Writer, type Client, type Surroundings } from './soak-agents.ts';
import { Operator } from './soak-operator.ts';

const mulberry32 = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

export class World implements Surroundings {
  readonly cluster: ServerCluster;
  readonly operator: Operator;
  readonly #membersChange: boolean;
  readonly random: () => number;
  readonly problems: string[] = [];
  readonly #runs = new Map<number, number>();
  readonly #expectedFatal: number[] = [];
  readonly writers: readonly Writer[];
  readonly readers: readonly Reader[];
  readonly waiters: readonly Waiter[];
  readonly subscribers: readonly Subscriber[];

  constructor(cluster: ServerCluster, seed: number, membersChange: boolean) {
    this.cluster = cluster;
    this.operator = new Operator(this, cluster.ids);
    this.#membersChange = membersChange;
    this.random = mulberry32(seed);
    for (const id of cluster.ids) this.#runs.set(id, 1);
    this.writers = [1, 2, 3].map((number) => new Writer(this, number));
    const registers = this.writers.map(({ register }) => register);
    this.readers = [1, 2, 3].map(() => new Reader(this));
    this.waiters = [1, 2].map(() => new Waiter(this, registers));
    this.subscribers = [1, 2].map(() => new Subscriber(this));
  }

  get nowMs(): number {
    return this.cluster.time.nowMs;
  }

  check(holds: boolean, problem: () => string): void {
    if (!holds) this.problems.push(`at ${this.nowMs} ms: ${problem()}`);
  }

  isUp(id: number): boolean {
    try {
      this.cluster.server(id);
      return true;
    } catch {
      return false;
    }
  }

  get up(): readonly number[] {
    return this.ids.filter((id) => this.isUp(id));
  }

  get ids(): readonly number[] {
    return this.operator.ids;
  }

  runOf(id: number): number {
    return this.isUp(id) ? (this.#runs.get(id) ?? 0) : -1;
  }

  get clients(): readonly Client[] {
    return [...this.writers, ...this.readers, ...this.waiters, ...this.subscribers];
  }

  pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random() * from.length)];
  }

  async restart(id: number): Promise<void> {
    this.#runs.set(id, (this.#runs.get(id) ?? 0) + 1);
    // A new one waits to be added; on a disk that has something this means nothing. One that was wiped begins anew, from
    // a file as old as its disk is new, and is not let in.
    const { ids } = this.cluster;
    // A process that ends by itself may leave it so; the next one would wait for its first write for ever.
    const disk = this.cluster.disks.get(id);
    if (disk) disk.manual = false;
    const isWiped = id === this.operator.wiped;
    try {
      await this.cluster.start(id, { join: !ids.includes(id), file: isWiped ? ids : this.ids });
    } catch (error) {
      if (!this.operator.expects(id, error)) throw error;
    }
  }

  checkFatal(): void {
    for (const { id, error } of this.cluster.fatal.splice(0)) {
      const at = this.#expectedFatal.indexOf(id);
      if (at >= 0) this.#expectedFatal.splice(at, 1);
      else if (!this.operator.expects(id, error))
        this.problems.push(`server ${id} ended: ${String((error as Error).stack ?? error)}`);
      this.cluster.disks.get(id)?.crash();
    }
  }

  async fault(): Promise<void> {
    const { cluster } = this;
    const id = this.pick(this.ids);
    if (id === undefined) return;
    const disk = cluster.disks.get(id);
    const chance = this.random();
    if (chance < 0.25) {
      if (this.isUp(id)) {
        cluster.network.crash(id);
        if (disk) disk.crash(this.random() < 0.5 ? this.random : undefined);
        if (disk) disk.manual = false;
        cluster.crash(id);
      }
    } else if (chance < 0.55) {
      const down = this.pick(this.ids.filter((each) => !this.isUp(each)));
      if (down !== undefined) await this.restart(down);
    } else if (chance < 0.65) cluster.network.isolate(id, this.ids);
    else if (chance < 0.75) {
      const other = this.pick(this.ids.filter((each) => each !== id));
      if (other !== undefined) cluster.network.cut(id, other);
    } else if (chance < 0.9) cluster.network.heal();
    else if (chance < 0.93) {
      if (this.isUp(id) && disk && !disk.manual) {
        this.#expectedFatal.push(id);
        disk.failNextWrite();
      }
    } else if (disk && this.isUp(id)) disk.manual = !disk.manual;
  }

  async step(): Promise<void> {
    const { cluster } = this;
    const durationMs = Math.floor(this.random() * 120);
    // At any moment, also in the middle of a server's turn with what arrives from its peers.
    const within = (work: () => void): void => {
      cluster.time.after(Math.floor(this.random() * durationMs), work);
    };
    for (const writer of this.writers)
      for (let count = Math.floor(this.random() * 4); count > 0; count -= 1) within(() => writer.write());
    const register = this.pick(this.writers)?.register;
    for (const reader of this.readers) if (register) within(() => reader.read(register));
    if (this.random() < 0.2) {
      const waited = this.pick(this.writers)?.register;
      const waiter = this.pick(this.waiters);
      if (waiter && waited) waiter.add(waited);
    }
    if (this.random() < 0.12) await this.fault();
    if (this.#membersChange && this.random() < 0.15) within(() => this.operator.step());
    if (this.random() < 0.3) cluster.network.delayMs = 1 + Math.floor(this.random() * 30);
    await cluster.time.run(durationMs);
    for (const disk of cluster.disks.values()) if (disk.manual && this.random() < 0.6) disk.completeNext();
    this.checkFatal();
    this.operator.follow();
    for (const client of this.clients) client.step();
  }

  async heal(): Promise<void> {
    const { cluster } = this;
    cluster.network.delayMs = 1;
    for (const disk of cluster.disks.values()) disk.manual = false;
    // What is to fail yet does so now.
    await cluster.time.run(1000);
    this.checkFatal();
    for (const id of this.ids) if (!this.isUp(id)) await this.restart(id);
    cluster.network.heal();
    if (this.#membersChange) await this.endChanges();
  }

  /** All that is wanted of the members is carried out, and who is wiped is replaced. */
  async endChanges(): Promise<void> {
    const { cluster, operator } = this;
    const endMs = this.nowMs + 60_000;
    let quietMs = this.nowMs;
    for (;;) {
      await cluster.time.run(500);
      this.checkFatal();
      operator.follow();
      for (const id of this.ids) if (!this.isUp(id)) await this.restart(id);
      if (this.nowMs >= endMs) return this.check(false, () => 'the members are never as they are wanted');
      if (cluster.leads === undefined) continue;
      if (operator.wiped !== undefined) operator.step();
      else {
        const list = await cluster.list(cluster.leads);
        // What was asked for long ago may be sent again by a server that only now hears a leader.
        if (list.changePending) quietMs = this.nowMs;
        else if (this.nowMs - quietMs > 8000) return operator.end(list);
      }
    }
  }

  get idle(): boolean {
    return [...this.writers, ...this.readers, ...this.waiters].every(({ done }) => done);
  }

  /** Everything that was asked is answered, and everyone has seen the end. */
  async converge(): Promise<void> {
    const { cluster } = this;
    // Away from servers that have left.
    for (const client of this.clients) client.step();
    const endMs = this.nowMs + 60_000;
    while (!this.idle && this.nowMs < endMs) {
      for (const waiter of this.waiters)
        for (const [register, generation] of waiter.wanted)
          if (register.sent < generation)
            this.writers.find((writer) => writer.register === register)?.write();
      await cluster.time.run(50);
      this.checkFatal();
      for (const id of this.ids) if (!this.isUp(id)) await this.restart(id);
      for (const client of this.clients) client.step();
    }
    this.check(this.idle, () => 'something was never answered, though all servers were well for a minute');
    for (const reader of this.readers) for (const { register } of this.writers) reader.read(register);
    await cluster.time.run(3000);
    this.check(this.idle, () => 'a read on a healthy cluster was not answered');
    for (const { register } of this.writers) {
      this.check(
        register.acknowledged === register.sent,
        () => `${register.key}: ${register.sent} writes, ${register.acknowledged} acknowledged`,
      );
      for (const { last } of this.subscribers)
        this.check(
          (last.get(register.key) ?? 0) === register.sent,
          () => `a subscriber saw ${last.get(register.key)} of ${register.sent} of ${register.key}`,
        );
    }
    await cluster.converged();
    this.checkFatal();
    const refused = cluster.network.refusals.filter((reason) => /older copy/.test(reason));
    this.check(refused.length === 0, () => `an honest disk was refused: ${refused[0]}`);
  }
}

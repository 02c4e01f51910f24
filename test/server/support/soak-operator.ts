/** The operator of the soak test. */
import { FuturestoreError, type AnswerBody, type MemberList } from '../../../src/protocol/index.ts';
import { MemoryDisk } from '../../../src/storage/index.ts';
import { describeMember, type AgentRequest } from './server-cluster.ts';
import type { Surroundings } from './soak-agents.ts';

/** An operator who changes the members, and starts and ends servers as the list of members says. */
export class Operator {
  readonly #world: Surroundings;
  #ids: readonly number[];
  #asked = 0;
  #removals = 0;
  /** Its disk is gone: it must be replaced. */
  #wiped: number | undefined;
  readonly #everWiped = new Set<number>();
  changes = 0;

  constructor(world: Surroundings, ids: readonly number[]) {
    this.#world = world;
    this.#ids = ids;
  }

  /** Those that are members, or were told to be, as far as is known. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  get wiped(): number | undefined {
    return this.#wiped;
  }

  /** Its data are outdated, as they must be found: it has been wiped, and may have been replaced since. */
  expects(id: number, error: unknown): boolean {
    return this.#everWiped.has(id) && error instanceof FuturestoreError && error.code === 'DATA_OUTDATED';
  }

  #ask(request: AgentRequest, answered: (body: AnswerBody) => void): void {
    const at = this.#world.pick(this.#world.up);
    if (at === undefined) return;
    const agent = this.#world.cluster.agent(at);
    const take = agent.received.bind(agent);
    agent.received = (event) => {
      take(event);
      if (event.kind === 'answer') answered(event.body);
    };
    agent.send(request);
  }

  #change(request: AgentRequest): void {
    if (request.kind === 'member_remove' || (request.kind === 'member_add' && request.replaces))
      this.#removals += 1;
    this.#ask(request, (body) => {
      if (body.kind === 'member_changed') this.changes += 1;
      else if (body.kind === 'failed')
        this.#world.check(
          ['MEMBERSHIP_REFUSED', 'UNAVAILABLE'].includes(body.failure.code),
          () => `a change of members was answered ${JSON.stringify(body)}`,
        );
      else if (body.kind !== 'leader_transferred')
        this.#world.check(false, () => `a change of members was answered ${JSON.stringify(body)}`);
    });
  }

  /** Looks at who is a member, and does one thing about it. */
  step(): void {
    this.#ask({ kind: 'member_list' }, (body) => {
      if (body.kind === 'members') this.#look(body.list);
    });
  }

  #look({ members }: MemberList): void {
    const world = this.#world;
    const unknown = members.map(({ id }) => id).filter((id) => id > Math.max(...this.#ids));
    this.#ids = [...this.#ids, ...unknown];
    const { random } = world;
    const voters = members.filter(({ standing }) => standing === 'voter').map(({ id }) => id);
    const learners = members.filter(({ standing }) => standing === 'learner').map(({ id }) => id);
    const [voter, learner] = [world.pick(voters), world.pick(learners)];
    this.#asked += 1;
    const { name, peersAddress, agentsUrl } = describeMember(100 + this.#asked);
    const add = { kind: 'member_add', name, peersAddress, agentsUrl } as const;
    if (this.#wiped !== undefined) {
      const wanted = members.find(({ id }) => id === this.#wiped)?.wanted;
      if (wanted === undefined) this.#wiped = undefined;
      else if (wanted !== 'removed') this.#change({ ...add, replaces: this.#wiped });
      return;
    }
    const chance = random();
    if (voter === undefined) return;
    if (chance < 0.2) this.#change({ kind: 'transfer_leader', member: voter });
    else if (learner !== undefined && chance < 0.5) this.#change({ kind: 'member_promote', member: learner });
    else if (chance < 0.7 && members.length < 6) this.#change(add);
    else if (chance < 0.85) this.#change({ kind: 'member_remove', member: learner ?? voter });
    else if (voters.length > 2 && learners.length === 0) {
      // Not while another removal may be under way: of two voters none can be spared.
      if (this.#removals === 0 && random() < 0.5) this.#wipe(voter);
      this.#change({ ...add, replaces: voter });
    }
  }

  #wipe(id: number): void {
    const { cluster } = this.#world;
    this.#wiped = id;
    this.#everWiped.add(id);
    cluster.crash(id);
    cluster.disks.set(id, new MemoryDisk());
  }

  /** Those that the cluster has removed are ended for good. */
  follow(): void {
    const { cluster } = this.#world;
    for (const id of cluster.removed) {
      cluster.crash(id);
      this.#ids = this.#ids.filter((each) => each !== id);
    }
    cluster.removed.clear();
  }

  /** No more changes: those that are members in the end are the ones that are started. */
  end({ members }: MemberList): void {
    const { cluster } = this.#world;
    const ids = members.map(({ id }) => id);
    for (const id of cluster.running) if (!ids.includes(id)) cluster.crash(id);
    this.#ids = ids;
  }
}

/**
 * The configurations that were committed, one after the other: any two that follow each other have a member in common in
 * each pair of their quorums (Raft §4.3), and nobody who has left comes back under the same id.
 */
import { decodeConfiguration, membersOf, type Configuration, type InvariantView } from '../../raft/index.ts';
import { violated } from './violation.ts';

const isQuorum = (configuration: Configuration, has: (id: number) => boolean): boolean =>
  [configuration.voters, configuration.votersOutgoing].every(
    (half) => half.length === 0 || 2 * half.filter(has).length > half.length,
  );

/** Any larger set of a quorum's members is one too, so it is enough to look at each set and its complement. */
const canDisagree = (one: Configuration, other: Configuration): boolean => {
  const all = [...new Set([...membersOf(one), ...membersOf(other)])];
  for (let set = 0; set < 2 ** all.length; set += 1) {
    const isIn = (id: number): boolean => (set & (1 << all.findIndex((each) => each === id))) !== 0;
    if (isQuorum(one, isIn) && isQuorum(other, (id) => !isIn(id))) return true;
  }
  return false;
};

const describe = ({ voters, votersOutgoing, learners, learnersNext }: Configuration): string =>
  `[${voters.join()}][${votersOutgoing.join()}] and learners [${learners.join()}][${learnersNext.join()}]`;

export class ConfigurationChecks {
  last: Configuration | undefined;
  /** Of the files that the first servers began with. */
  #founding: Configuration | undefined;
  /** The committed ones, in the order of the log. */
  readonly #committed: { readonly index: number; readonly configuration: Configuration }[] = [];
  /** By the place of the entry. */
  readonly #written = new Map<number, Configuration>();
  /** Who has left, with the place in the log of the configuration that came without it. */
  readonly #left = new Map<number, number>();
  /** Empty entries that were written, be it that another one took the place since: what they seal ends at `upTo`. */
  readonly #empty: { readonly index: number; readonly upTo: number }[] = [];

  /** A server has begun by its file. */
  bootstrapped(configuration: Configuration): void {
    if (configuration.voters.length === 0) return;
    this.#founding ??= configuration;
    this.last ??= configuration;
  }

  written(place: number, payload: Uint8Array): void {
    this.#written.set(place, decodeConfiguration(payload));
  }

  /** Entries in the order of the log; of most of them there is nothing to say. */
  committed(index: number, place: number): void {
    const next = this.#written.get(place);
    if (next === undefined) return;
    this.#committed.push({ index, configuration: next });
    const { last } = this;
    this.last = next;
    if (last === undefined) return;
    if (canDisagree(last, next)) {
      violated('quorums intersect', `${describe(next)} follows ${describe(last)}: each could decide alone`);
    }
    const members = membersOf(next);
    for (const id of members) {
      if (this.#left.has(id)) violated('ids of members', `member ${id} had left, and is one again`);
    }
    for (const id of membersOf(last)) if (!members.includes(id)) this.#left.set(id, index);
  }

  /** `upTo`: what its leader had applied, at the most. */
  writtenEmpty(index: number, upTo: number): void {
    this.#empty.push({ index, upTo });
  }

  hasLeft(member: number): boolean {
    return this.#left.has(member);
  }

  /**
   * A quorum has on disk that the configuration without it is committed: an entry is that a leader has appended since it
   * has applied that one.
   * Where another one may have taken its place it is let pass. One that was to be a member, and never was, is not needed.
   */
  mayBeForgotten(member: number, committed: number): boolean {
    const leftAt = this.#left.get(member);
    if (leftAt === undefined) return true;
    return this.#empty.some(({ index, upTo }) => upTo >= leftAt && index > leftAt && index <= committed);
  }

  /** What counts on a server is what the log says up to where it is applied there, after a restart or a snapshot too. */
  counts({ id, applied, configuration }: InvariantView): void {
    const due = this.#committed.findLast(({ index }) => index <= applied)?.configuration;
    // Who waits to be added knows nobody before the log tells.
    if (due === undefined && configuration.voters.length === 0) return;
    const expected = due ?? this.#founding;
    if (expected === undefined || expected === configuration) return;
    if (describe(expected) === describe(configuration)) return;
    violated(
      'present configuration',
      `member ${id} has applied ${applied} and goes by ${describe(configuration)} instead of ${describe(expected)}`,
    );
  }
}

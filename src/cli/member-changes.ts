/** What the commands about members share: who is meant, and when a change has been carried out. */
import type { Member, MemberList } from '../protocol/index.ts';
import { failure } from './command-options.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { visible } from './output.ts';

const pollIntervalMs = 200;

export const titleOf = ({ id, name }: Pick<Member, 'id' | 'name'>): string =>
  name === '' ? `server ${id}` : `server ${id} (${visible(name)})`;

/** `who`: an id, else a name. Throws UsageError where that is nobody, or two. */
export const memberCalled = ({ members }: MemberList, who: string): Member => {
  const byId = /^[0-9]{1,10}$/.test(who) ? members.find(({ id }) => id === Number(who)) : undefined;
  if (byId !== undefined) return byId;
  const named = members.filter(({ name }) => name === who);
  const [first] = named;
  if (first !== undefined && named.length === 1) return first;
  if (first !== undefined) {
    throw new UsageError(
      `${named.length} servers are called ${visible(who)}: say which by its id, ${named.map(({ id }) => id).join(' or ')}`,
    );
  }
  throw new UsageError(
    `no server is called ${visible(who)}: there are ${members.map((member) => `${member.id} (${visible(member.name)})`).join(', ')}`,
  );
};

/** By shape, not class: the registry need not be loaded to look at an error. */
export const hasErrorCode = (error: unknown, code: string): error is Error =>
  error instanceof Error && 'code' in error && error.code === code;

/** The time that one command may take. */
export class Deadline {
  readonly #environment: CommandEnvironment;
  readonly #atMs: number;
  readonly timeoutMs: number;

  constructor(environment: CommandEnvironment, timeoutMs: number) {
    this.#environment = environment;
    this.timeoutMs = timeoutMs;
    this.#atMs = environment.now() + timeoutMs;
  }

  get passed(): boolean {
    return this.#environment.now() >= this.#atMs;
  }

  /** For the next request: what is left, or just enough to fail. */
  get left(): { readonly timeoutMs: number } {
    return { timeoutMs: Math.max(1, this.#atMs - this.#environment.now()) };
  }

  async pause(): Promise<void> {
    await this.#environment.pause(Math.min(pollIntervalMs, this.left.timeoutMs));
  }
}

/** Asks for the members until they are so; TIMED_OUT with what the user is to know of it. */
export const waitForMembers = async (
  client: CommandClient,
  deadline: Deadline,
  isSo: (list: MemberList) => boolean,
  describe: (list: MemberList) => string,
): Promise<void> => {
  let list: MemberList | undefined;
  for (;;) {
    try {
      list = await client.members(deadline.left);
    } catch (error) {
      if (!hasErrorCode(error, 'TIMED_OUT') || list === undefined) throw error;
    }
    if (list !== undefined && isSo(list)) return;
    if (deadline.passed) break;
    await deadline.pause();
  }
  const now = list === undefined ? '' : `: ${describe(list)}`;
  throw await failure(
    'TIMED_OUT',
    `the change is in the log, but not carried out within ${deadline.timeoutMs} ms${now}; it will be as soon as a majority can agree on it, see futurestore member list`,
  );
};

/**
 * The way of this server's commands into the log: through its own raft where it leads, else forwarded to the leader.
 *
 * Every command stays in the table until its result has been applied here, and is sent again, in the old order, when
 * it may have been lost (a new leader, a link that broke, a snapshot that jumped over it). Commands are made so that
 * a second one in the log does nothing: writes by their session's sequence numbers, the others by what they name.
 */
import { FuturestoreError } from '../protocol/index.ts';
import type { Dropped, Proposal, Raft, Token } from '../raft/index.ts';
import {
  decodeCommand,
  decodeLogEntry,
  encodeCommand,
  encodeLogEntryFromCommands,
  type Command,
  type CommandBody,
  type LogEntry,
} from '../store/index.ts';
import type { Logger } from './environment.ts';
import type { InFlight } from './requests.ts';

interface EncodedCommand {
  readonly command: Command;
  readonly encoded: Uint8Array;
}

export interface PendingCommand extends EncodedCommand {
  readonly number: number;
  /** undefined: the server's own. */
  readonly waiter: InFlight | undefined;
}

/** A log entry larger than these is split, so that applying one never holds up the loop. */
const entryBytesMax = 512 * 1024;
const entryCommandsMax = 1000;
/** What one turn forwards; the rest follows in the next turn. */
const forwardBytesMax = 4 * 1024 * 1024;

export interface CommandsOptions {
  readonly member: number;
  readonly run: number;
  readonly entryTimeMs: () => number;
  /** false: not sent, try again later. */
  readonly logger: Logger;
  readonly forward: (commands: readonly Uint8Array[]) => boolean;
}

/** The command, or what is wrong with it. */
const received = (from: number, encoded: Uint8Array): EncodedCommand | string => {
  try {
    const command = decodeCommand(encoded);
    const { member } = command.origin;
    return member === from ? { command, encoded } : `a command in the name of member ${member}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
};

/**
 * Those that are rare: each is read back before it is sent. What cannot be read must not get into the log, and writes,
 * which are many, are made of what a decoder of ours has given.
 */
const readBack: ReadonlySet<CommandBody['kind']> = new Set<CommandBody['kind']>([
  'session_open',
  'server_started',
  'member_add',
  'member_promote',
  'member_remove',
  'acl_apply',
  'acl_revoke',
  'acl_restore',
  'ticket_keys',
]);

export class Commands {
  readonly #options: CommandsOptions;
  readonly #pending = new Map<number, PendingCommand>();
  #lastNumber = 0;
  /** To be proposed or forwarded; in order. */
  #unsent: PendingCommand[] = [];
  /** From other servers, to be proposed here. They send them again if this server stops leading. */
  #foreign: EncodedCommand[] = [];
  /** What the proposals of the present turn hold, until raft has taken or dropped them. */
  readonly #offered = new Map<Token, { own: PendingCommand[]; foreign: EncodedCommand[] }>();
  /**
   * What the payloads of this leader's entries say, until they are applied: it need not be read from them again. Of
   * writes alone, whose form at a gateway is the one that decoding gives.
   */
  readonly #proposed = new WeakMap<Uint8Array, LogEntry>();
  #lastToken = 0;
  #held = false;

  constructor(options: CommandsOptions) {
    this.#options = options;
  }

  /** Throws INTERNAL for a command that servers could not read; nothing of it is sent. */
  submit(body: CommandBody, waiter?: InFlight): PendingCommand {
    const number = this.#lastNumber + 1;
    const { member, run } = this.#options;
    const command: Command = { origin: { member, run, request: number }, ...body };
    const pending = { number, command, encoded: this.#encode(command), waiter };
    this.#lastNumber = number;
    this.#pending.set(number, pending);
    this.#unsent.push(pending);
    if (waiter) waiter.command = number;
    return pending;
  }

  #encode(command: Command): Uint8Array {
    try {
      const encoded = encodeCommand(command);
      if (readBack.has(command.kind)) decodeCommand(encoded);
      return encoded;
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      this.#options.logger.error({ kind: command.kind, problem: why }, 'a bug: a command cannot be sent');
      throw new FuturestoreError('INTERNAL', `a bug: a ${command.kind} could not be read back (${why})`, {
        cause,
      });
    }
  }

  /** What can't be read must not get into the log: every server would fail on it, again after each start. */
  addForeign(from: number, commands: readonly Uint8Array[]): void {
    for (const encoded of commands) {
      const command = received(from, encoded);
      if (typeof command !== 'string') this.#foreign.push(command);
      else this.#options.logger.error({ peer: from, problem: command }, 'what a peer forwarded is dropped');
    }
  }

  /** Its result has been applied, or nobody waits for it: it is not sent again. */
  take(number: number): PendingCommand | undefined {
    const pending = this.#pending.get(number);
    if (pending) this.#pending.delete(number);
    return pending;
  }

  /** Everything without a result may have been lost on its way. */
  sendAgain(): void {
    this.#unsent = [...this.#pending.values()];
    this.#held = false;
  }

  dropForeign(): void {
    this.#foreign = [];
    this.#returned.foreign = [];
  }

  /** Time has passed: what raft or a link did not take may be offered again. */
  retry(): void {
    this.#held = false;
    // While nobody leads nothing is sent, and clients go on giving up and asking again.
    if (this.#unsent.length > 2 * this.#pending.size) {
      this.#unsent = this.#unsent.filter(({ number }) => this.#pending.has(number));
    }
  }

  /** Gives raft all that waits, as entries of bounded size. Call `settle` when raft has been drained. */
  propose(raft: Raft): void {
    if (this.#held || (this.#unsent.length === 0 && this.#foreign.length === 0)) return;
    const proposals: Proposal[] = [];
    let own: PendingCommand[] = [];
    let foreign: EncodedCommand[] = [];
    let encoded: Uint8Array[] = [];
    let commands: Command[] = [];
    let bytes = 0;
    const timeMs = this.#options.entryTimeMs();
    const close = (): void => {
      if (encoded.length === 0) return;
      this.#lastToken += 1;
      const payload = encodeLogEntryFromCommands(timeMs, encoded);
      if (commands.every(({ kind }) => kind === 'write')) this.#proposed.set(payload, { timeMs, commands });
      proposals.push({ token: this.#lastToken, payload });
      this.#offered.set(this.#lastToken, { own, foreign });
      own = [];
      foreign = [];
      encoded = [];
      commands = [];
      bytes = 0;
    };
    const add = (next: EncodedCommand): void => {
      const { length } = next.encoded;
      if (encoded.length >= entryCommandsMax || (bytes > 0 && bytes + length > entryBytesMax)) close();
      encoded.push(next.encoded);
      commands.push(next.command);
      bytes += length;
    };
    for (const pending of this.#unsent) {
      if (!this.#pending.has(pending.number)) continue;
      add(pending);
      own.push(pending);
    }
    for (const command of this.#foreign) {
      add(command);
      foreign.push(command);
    }
    close();
    this.#unsent = [];
    this.#foreign = [];
    if (proposals.length > 0) raft.step({ kind: 'propose', proposals });
  }

  /** What an entry says that is about to be applied. */
  read(payload: Uint8Array): LogEntry {
    const proposed = this.#proposed.get(payload);
    if (proposed === undefined) return decodeLogEntry(payload);
    // The log keeps the payload for longer.
    this.#proposed.delete(payload);
    return proposed;
  }

  /** Sends what waits to the leader; call it only where this server does not lead. */
  forward(): void {
    if (this.#held) return;
    while (this.#unsent.length > 0) {
      let bytes = 0;
      let taken = 0;
      const commands: Uint8Array[] = [];
      for (const pending of this.#unsent) {
        if (bytes > 0 && bytes + pending.encoded.length > forwardBytesMax) break;
        taken += 1;
        if (!this.#pending.has(pending.number)) continue;
        commands.push(pending.encoded);
        bytes += pending.encoded.length;
      }
      if (commands.length > 0 && !this.#options.forward(commands)) {
        this.#held = true;
        return;
      }
      this.#unsent = this.#unsent.slice(taken);
    }
  }

  /** Raft did not take a proposal of this turn. */
  dropped(dropped: Dropped): void {
    const offered = this.#offered.get(dropped.token);
    if (offered === undefined)
      throw new Error(`raft dropped proposal ${dropped.token}, which this turn did not offer`);
    this.#offered.delete(dropped.token);
    // Several entries of one turn are dropped in their order: each goes behind the ones before it.
    this.#returned.own.push(...offered.own);
    this.#returned.foreign.push(...offered.foreign);
  }
  #returned: { own: PendingCommand[]; foreign: EncodedCommand[] } = { own: [], foreign: [] };

  /** Raft has been drained: what it did not drop is in its log. Gives how many commands it dropped. */
  settle(): number {
    this.#offered.clear();
    const { own, foreign } = this.#returned;
    if (own.length === 0 && foreign.length === 0) return 0;
    this.#returned = { own: [], foreign: [] };
    // Since they were dropped all may have been queued again: none must come twice, or before those it came after.
    const next = this.#unsent[0]?.number ?? Infinity;
    this.#unsent = own.filter(({ number }) => number < next).concat(this.#unsent);
    this.#foreign = foreign.concat(this.#foreign);
    this.#held = true;
    return own.length + foreign.length;
  }

  get pending(): number {
    return this.#pending.size;
  }

  /** Whether a turn of the loop would do something with them. */
  get waiting(): boolean {
    return !this.#held && (this.#unsent.length > 0 || this.#foreign.length > 0);
  }
}

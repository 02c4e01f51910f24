/**
 * The store: the replicated state machine. What is said in an entry of the log becomes futures, sessions and answers
 * here, and nothing else does.
 *
 * Owns the rules of futures (transitions.ts), batches (writes.ts), idempotency sessions, time and expiry, the
 * remembering of deletions, what is wanted of the cluster's servers (members.ts), policies and revocations (access.ts),
 * and the form in which entries and
 * state are kept. May call scopes and protocol. Is pure and synchronous: no I/O, no clock, no randomness, no promise.
 * Promises that `apply` is a function of the state and the entry; that loading the records of a state gives that state;
 * that a future is settled at most once in a generation and no generation of a key is used twice; that the id of a
 * member is given once; and that the work of every call is bounded.
 */
export {
  decodeCommand,
  decodeLogEntry,
  encodeCommand,
  encodeLogEntry,
  encodeLogEntryFromCommands,
} from './log-codec.ts';
export { Store } from './store.ts';
export { policiesOf } from './access.ts';
export { ticketKeyBytes } from './ticket-keys.ts';
export type { TicketKeys } from './ticket-keys.ts';
export type {
  Access,
  AccessCommand,
  Applied,
  AskedBy,
  ChangesPage,
  ChangesQuery,
  Command,
  CommandBody,
  CommandResult,
  Due,
  DueFuture,
  DueSession,
  ListPage,
  ListQuery,
  LogEntry,
  MemberRecord,
  Origin,
  SessionId,
  StateRecord,
  StateWrite,
  StoreOptions,
  Subject,
} from './types.ts';

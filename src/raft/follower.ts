/** The follower's side of replication (Raft §5.3, §7). */

import type { Core } from './core.ts';
import { adoptFirstConfiguration } from './configuration-history.ts';
import { follow, switchConfiguration } from './roles.ts';
import { asLogIndex } from './types.ts';
import type { Entry, LogIndex, MemberId, Message } from './types.ts';

type MessageOf<Kind extends Message['kind']> = Extract<Message, { readonly kind: Kind }>;

const accept = (core: Core, to: MemberId, matchIndex: LogIndex): void => {
  if (core.toldTerm !== core.term || core.toldIndex < matchIndex) core.toldIndex = matchIndex;
  core.toldTerm = core.term;
  core.sendWhenDurable(to, { kind: 'append_response', outcome: { accepted: true, matchIndex } }, matchIndex);
};

/** The entries from `index` on will not be written. */
const withdrawAnswers = (core: Core, index: LogIndex): void => {
  core.outbox.withdrawAppendAnswers(index);
  core.toldTerm = 0;
};

/** Keeps what is there already: a late old append must not cut off entries that were acknowledged since. */
const mergeEntries = (core: Core, entries: readonly Entry[]): void => {
  const { log } = core;
  for (const entry of entries) {
    if (entry.index <= log.last) {
      if (log.matches(entry.index, entry.term)) continue;
      log.truncateFrom(entry.index);
      withdrawAnswers(core, entry.index);
    }
    log.append(entry);
  }
};

export const handleAppendRequest = (core: Core, message: MessageOf<'append_request'>): void => {
  follow(core, message.from);
  // The old log is about to be replaced: nothing may be promised about it.
  if (core.install !== undefined) return;
  const { log } = core;
  const { entries } = message;
  const lastNew = asLogIndex(message.previousIndex + entries.length);
  if (lastNew <= log.commit) return accept(core, message.from, log.commit);
  // What is committed here is the same everywhere, and may be compacted: compare from there on.
  const known = Math.max(log.commit - message.previousIndex, 0);
  if (known === 0 && !log.matches(message.previousIndex, message.previousTerm)) {
    const hintIndex = log.lastIndexOfTerm(message.previousIndex, message.previousTerm);
    const hintTerm = log.termAt(hintIndex) ?? message.previousTerm;
    const outcome = { accepted: false, rejectedIndex: message.previousIndex, hintIndex, hintTerm } as const;
    return core.send(message.from, { kind: 'append_response', outcome });
  }
  mergeEntries(core, known === 0 ? entries : entries.slice(known));
  adoptFirstConfiguration(core);
  const { commit } = log;
  log.commitTo(asLogIndex(Math.min(message.commit, lastNew)));
  // Only a commit index was told, and what the answer could say has been said: it would cost all a turn for nothing.
  // Was that lost, the leader asks again (a probe, or after a heartbeat), and then the commit index does not move.
  const isNotice = entries.length === 0 && log.commit > commit;
  if (isNotice && core.toldTerm === core.term && core.toldIndex >= lastNew) return;
  accept(core, message.from, lastNew);
};

/** A commit beyond the last entry is from before this member lost its disk: it is not believed. */
export const handleHeartbeatRequest = (core: Core, message: MessageOf<'heartbeat_request'>): void => {
  follow(core, message.from);
  if (message.settledTo > core.settledTo) core.settledTo = message.settledTo;
  if (core.install === undefined && message.commit <= core.log.last) core.log.commitTo(message.commit);
  core.send(message.from, { kind: 'heartbeat_response', readRound: message.readRound });
};

export const handleInstallSnapshot = (core: Core, message: MessageOf<'install_snapshot'>): void => {
  follow(core, message.from);
  if (core.install !== undefined) return;
  const { log } = core;
  const { index, term } = message.snapshot;
  if (index <= log.commit) return accept(core, message.from, log.commit);
  if (log.matches(index, term)) {
    log.commitTo(index);
    return accept(core, message.from, index);
  }
  core.install = { snapshot: message.snapshot, sequence: undefined };
  withdrawAnswers(core, asLogIndex(log.handed + 1));
  core.sendAfterWrite(
    message.from,
    { kind: 'append_response', outcome: { accepted: true, matchIndex: index } },
    core.outbox.nextSequence,
  );
};

/** After a write: the snapshot that was in it is the state now. */
export const finishInstall = (core: Core): void => {
  const { install } = core;
  if (install?.sequence === undefined || install.sequence > core.outbox.persistedSequence) return;
  core.install = undefined;
  core.log.restore(install.snapshot);
  core.baseConfiguration = install.snapshot.configuration;
  switchConfiguration(core, install.snapshot.configuration);
};

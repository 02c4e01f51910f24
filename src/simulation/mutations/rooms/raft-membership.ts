/** Rules broken in src/raft: configurations and their changes. */
import type { Mutation } from '../mutation.ts';

export const raftMembershipMutations: readonly Mutation[] = [
  {
    name: 'learner-counts',
    rule: 'A learner counts for nothing, neither for commits nor for reads.',
    file: 'raft/quorum.ts',
    find: 'reachedByMajority(configuration.voters, valueOf),',
    replace: 'reachedByMajority([...configuration.voters, ...configuration.learners], valueOf),',
  },
  {
    name: 'joint-commit-by-one-half',
    rule: 'In a joint configuration both halves have to have what is committed (Raft §4.3).',
    file: 'raft/quorum.ts',
    find: 'reachedByMajority(configuration.votersOutgoing, valueOf),',
    replace: 'Infinity,',
  },
  {
    name: 'joint-election-by-one-half',
    rule: 'In a joint configuration both halves have to vote for a leader (Raft §4.3).',
    file: 'raft/quorum.ts',
    find: 'const outgoing = majorityResult(configuration.votersOutgoing, voteOf);',
    replace: 'const outgoing = incoming;',
    quick: true,
  },
  {
    name: 'two-voters-in-one-step',
    rule: 'A change of more than one voter goes through a joint configuration.',
    file: 'raft/configuration.ts',
    find: 'if (changed + left <= 1) return',
    replace: 'if (changed + left <= 2) return',
    quick: true,
  },
  {
    name: 'change-upon-change',
    rule: 'A change begins only when the one before is applied.',
    file: 'raft/membership.ts',
    find: 'isJoint(core.configuration) || hasUnapplied(core);',
    replace: 'isJoint(core.configuration);',
  },
  {
    name: 'joint-never-left',
    rule: 'A joint configuration is left, whichever leader began it.',
    file: 'raft/membership.ts',
    find: 'if (!configuration.autoLeave || hasUnapplied(core) || !isReady(core)) return;',
    replace: 'return;',
    quick: true,
  },
  {
    name: 'removed-leader-stays',
    rule: 'A leader that is no voter any more hands over and goes.',
    file: 'raft/membership.ts',
    find: 'if (leadership === undefined || core.isVoter || !isChangeSettled(core)) return;',
    replace: 'if (core.id > 0) return;',
  },
  {
    name: 'compaction-forgets-the-configuration',
    rule: 'What is cut off the log leaves its last configuration behind.',
    file: 'raft/configuration-history.ts',
    find: 'core.baseConfiguration = configuration;',
    replace: '',
  },
  {
    name: 'settled-before-it-is-known',
    rule: 'A follower takes a change for settled only where the leader has told so.',
    file: 'raft/settled.ts',
    find: 'return settledTo >= log.baseIndex && log.configurationsBetween(settledTo, log.applied).length === 0;',
    replace: 'return log.configurationsBetween(settledTo, settledTo).length === 0;',
  },
];

/** All checks: what is looked at after every step, and what is judged in the end. */
export { AccessChecks, type Sending } from './access-checks.ts';
export { AnswerChecks } from './answer-checks.ts';
export { ClusterTimeChecks } from './cluster-time-checks.ts';
export { ConsensusChecks } from './consensus-checks.ts';
export { FeedChecks } from './feed-checks.ts';
export {
  formatHistory,
  parseHistory,
  writeHistory,
  type HistoryError,
  type HistoryOperation,
  type HistorySeen,
  type HistoryWrite,
  type HistoryWritten,
} from './history.ts';
export { checkLinearizable, undecidedShareMax } from './linearizability.ts';
export { ServingChecks } from './serving-checks.ts';
export { StateChecks } from './state-checks.ts';
export { SafetyViolation } from './violation.ts';

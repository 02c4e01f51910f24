/** All checks: what is looked at after every step, and what is judged in the end. */
export { AnswerChecks } from './answer-checks.ts';
export { ConsensusChecks } from './consensus-checks.ts';
export { FeedChecks, type FeedEvent } from './feed-checks.ts';
export {
  formatHistory,
  parseHistory,
  readHistory,
  writeHistory,
  type HistoryError,
  type HistoryOperation,
  type HistorySeen,
  type HistoryWrite,
  type HistoryWritten,
  type Verdict,
} from './history.ts';
export { checkLinearizable, type LinearizabilityOptions } from './linearizability.ts';
export { StateChecks, type AppliedEntry } from './state-checks.ts';
export { SafetyViolation } from './violation.ts';

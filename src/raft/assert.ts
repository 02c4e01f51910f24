/** A broken invariant of the core. The state cannot be trusted any more: the process has to end. */
export class InvariantViolation extends Error {
  constructor(message: string) {
    super(`raft: ${message}`);
    this.name = 'InvariantViolation';
  }
}

/** Called as `if (broken) violated(…)`, so that the message is only built when it is needed. */
export function violated(message: string): never {
  throw new InvariantViolation(message);
}

/** A promise of the system was seen broken. `check` names which check saw it, for tables. */
export class SafetyViolation extends Error {
  readonly check: string;

  constructor(check: string, text: string) {
    super(`${check}: ${text}`);
    this.name = 'SafetyViolation';
    this.check = check;
  }
}

export const violated = (check: string, text: string): never => {
  throw new SafetyViolation(check, text);
};

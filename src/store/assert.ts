/** For what can only be false through a bug: the state of this replica cannot be trusted any more, so it must stop. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`store: ${message}: this is a bug, please report it`);
}

/** For the `default` of an exhaustive switch. */
export const unreachable = (value: never, what: string): never => {
  throw new Error(`store: ${what} is not known here: ${String(value)}: this is a bug, please report it`);
};

/** An absent message field is null or undefined. */
export const isGiven = <T>(value: T | null | undefined): value is T => value !== null && value !== undefined;

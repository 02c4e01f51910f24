/** What JavaScript's timers can hold, 24.8 days: who waits for longer waits until the caller goes. */
const timerMsMax = 2 ** 31 - 1;

/** Calls back after so long; gives what ends it. */
export const after = (ms: number, callback: () => void): (() => void) => {
  if (ms > timerMsMax) return () => undefined;
  const timer = setTimeout(callback, ms);
  return () => clearTimeout(timer);
};

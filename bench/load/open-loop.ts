/**
 * Requests at fixed times, whether earlier ones have been answered or not, so that a stall is seen by all who would
 * have come during it. (Closed loops leave out exactly the slow moments.)
 */

/** Gives each request the time (performance.now) for which it was scheduled; resolves when all are answered. */
export const openLoop = async (
  perSecond: number,
  count: number,
  request: (index: number, scheduledAtMs: number) => Promise<unknown> | undefined,
): Promise<void> => {
  const startMs = performance.now();
  const everyMs = 1000 / perSecond;
  const answers: Promise<unknown>[] = [];
  for (let index = 0; index < count;) {
    const dueMs = startMs + index * everyMs;
    const nowMs = performance.now();
    if (nowMs < dueMs) {
      await new Promise((resolve) => setTimeout(resolve, Math.ceil(dueMs - nowMs)));
      continue;
    }
    const answer = request(index, dueMs);
    if (answer !== undefined) answers.push(answer);
    index += 1;
  }
  await Promise.all(answers);
};

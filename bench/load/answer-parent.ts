/** The end of a load generator's process: it does what its parent asks for, tells what came of it, and ends. */
import process from 'node:process';

/** Gives plain data. */
type Work = (job: unknown) => Promise<object>;

const answer = async (work: Work, job: unknown): Promise<void> => {
  try {
    const done = await work(job);
    // The channel is closed, and with it the process ends, once this has left.
    process.send?.(done, () => process.disconnect());
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
};

export const answerParent = (work: Work): void => {
  process.once('message', (job) => void answer(work, job));
};

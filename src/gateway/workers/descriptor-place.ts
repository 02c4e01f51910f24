/**
 * The number of a listening socket that several threads share. In Node 20 threads can share one only by its number
 * (`listen({ fd })`): each of their servers takes it for its own, and closes it when it closes. The first one to do so
 * closes the socket, and the number is free: the next thing that is opened anywhere in the process may get it, and the
 * second server would close that, a file of the store perhaps.
 *
 * So they close one after the other, and before each but the first the number is taken by a file that means nothing,
 * which is what that server then closes.
 */
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whoever got the number before us may keep it for long: a link between servers does. */
const triesMax = 50;
const betweenTriesMs = 10;

/** Takes the lowest free numbers until it has this one; gives the others back. */
const tryToTake = (descriptor: number): boolean => {
  const below: number[] = [];
  for (;;) {
    const opened = openSync('/dev/null', 'r');
    if (opened < descriptor) {
      below.push(opened);
      continue;
    }
    for (const each of below) closeSync(each);
    if (opened === descriptor) return true;
    closeSync(opened);
    return false;
  }
};

/** Makes the number one that may be closed without harm. Whether it could: else somebody else has it. */
export const takeDescriptor = async (descriptor: number): Promise<boolean> => {
  for (let left = triesMax; left > 0; left -= 1) {
    if (tryToTake(descriptor)) return true;
    await sleep(betweenTriesMs);
  }
  return false;
};

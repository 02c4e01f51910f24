import { expect, test } from 'vitest';
import { Life, VirtualTime } from '../../src/simulation/clock.ts';

test('what piled up while a process stood still happens before what arrives when it goes on', () => {
  const time = new VirtualTime();
  const life = new Life('process');
  const happened: string[] = [];
  const note = (text: string) => (): void => {
    happened.push(text);
  };
  time.stop(life);
  time.at(1, life, 'input', note('first message'));
  time.at(2, life, 'timer', note('timer'));
  time.at(3, life, 'input', note('second message'));
  time.at(5, time.world, 'input', () => time.resume(life, true));
  // It was on its way before the process went on, and arrives in the same instant.
  time.at(5, life, 'input', note('third message'));
  while (time.runNext(10));
  expect(happened).toEqual(['timer', 'first message', 'second message', 'third message']);
});

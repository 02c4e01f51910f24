import { describe, expect, test } from 'vitest';
import { runAgents } from '../agents/run.ts';

describe('hundreds of agents with certificates of their own', () => {
  // `npm run agents` takes ten thousand, and holds what one of them costs a server.
  test('get what is theirs and nothing else: while servers are killed, and some agents lose their rights', async ({
    signal,
  }) => {
    const { rows, violations, directory } = await runAgents({
      agents: 240,
      processes: 1,
      roundMs: 1_500,
      settleMs: 200,
      log: () => undefined,
      signal,
    });
    console.log(rows.map(([name, text]) => `${name.padEnd(16)} ${text}`).join('\n'));
    expect(violations, `the servers' files are in ${directory ?? 'no place'}`).toEqual([]);
    expect(rows.map(([name]) => name)).toEqual(
      expect.arrayContaining([
        'values',
        'foreign keys',
        'a follower killed',
        'the leader killed',
        'revoked',
        'asleep',
      ]),
    );
  });
});

import { describe, expect, test } from 'vitest';
import type { Subject } from '../../src/store/index.ts';
import { ServerCluster } from './support/server-cluster.ts';

const by: Subject = {
  principal: { realm: 'agents', name: 'admin' },
  credential: { realm: 'agents', name: 'admin' },
};
const added = (name: string) => ({
  kind: 'member_add' as const,
  name,
  peersAddress: `${name}:7422`,
  agentsUrl: `wss://${name}:7421`,
  by,
});
const revocation = { kind: 'principal', realm: 'agents', name: 'eve' } as const;

describe('a change of members', () => {
  test('is told on every server, with who asked for it, whether or not the cluster decides over access', async () => {
    const lines: (readonly [id: number, fields: Readonly<Record<string, unknown>>])[] = [];
    const onInfo = (id: number, fields: Readonly<Record<string, unknown>>): void => {
      if (fields['audit'] === 'changed') lines.push([id, fields]);
    };
    const cluster = await ServerCluster.start({ servers: 3, onInfo });
    await cluster.time.until('all have heard from each other', () =>
      cluster.ids.every((id) => cluster.server(id).inspect().store.ticketKeys !== undefined),
    );
    // It forwards what it is asked for.
    const follower = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    const operator = cluster.agent(follower);
    const ask = async (request: Parameters<typeof operator.send>[0]): Promise<void> => {
      const answer = await cluster.answer(operator, operator.send(request));
      expect(answer, JSON.stringify(answer)).toMatchObject({ kind: expect.stringMatching(/changed$/) });
    };
    await ask(added('north'));
    await ask({ kind: 'acl_revoke', by, revocation, untilMs: 9_000_000_000_000 });
    await ask(added('south'));
    await ask({ kind: 'member_remove', member: 4, by });
    const ofAll = (): boolean => lines.length >= 4 * cluster.ids.length;
    await cluster.time.until('all servers have told of all changes', ofAll);
    for (const id of cluster.ids) {
      expect(lines.filter(([server]) => server === id).map(([, fields]) => fields)).toMatchObject([
        { change: 'member_add', principal: 'agents:admin', name: 'north', outcome: 'done', member: 4 },
        { change: 'acl_revoke', principal: 'agents:admin', revocation, untilMs: 9_000_000_000_000 },
        { change: 'member_add', principal: 'agents:admin', name: 'south', outcome: 'done', member: 5 },
        { change: 'member_remove', principal: 'agents:admin', member: 4, outcome: 'done' },
      ]);
    }
  });
});

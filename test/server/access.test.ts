/** Policies and revocations on whole servers: who is told of them when, across elections, restarts and snapshots. */
import { describe, expect, test } from 'vitest';
import type { Operation } from '../../src/protocol/index.ts';
import { canonicalJson, type PolicyDocument, type Revocation } from '../../src/scopes/index.ts';
import type { Subject } from '../../src/server/index.ts';
import { ServerCluster, type Agent } from './support/server-cluster.ts';

const documentOf = (on: string): PolicyDocument => ({
  realms: { agents: { tls: { issuer: 'PEM', identity: 'cn' }, vars: { node: 'cn' } } },
  policies: { all: [{ allow: ['*'], on }, { allow: ['acl.change', 'acl.get'] }] },
  bindings: [{ realm: 'agents', policies: ['all'] }],
});

const root: Subject = {
  principal: { realm: 'agents', name: 'root' },
  credential: { realm: 'agents', name: 'root' },
};
const theTest: Revocation = { kind: 'principal', realm: 'agents', name: 'test' };

const resolve = (key: string, value: string): Operation => ({
  kind: 'resolve',
  key,
  preconditions: {},
  value: Buffer.from(value),
  contentType: 'text/plain',
  sensitive: false,
  supersede: true,
});

const apply = async (cluster: ServerCluster, at: number, document: PolicyDocument): Promise<number> => {
  const agent = cluster.agent(at);
  const bytes = Buffer.from(canonicalJson(document));
  const body = await cluster.answer(agent, agent.send({ kind: 'acl_apply', by: root, document: bytes }));
  if (body.kind !== 'access_changed') throw new Error(`the policies were answered ${JSON.stringify(body)}`);
  return body.revision;
};

const revoke = async (cluster: ServerCluster, at: number, revocation = theTest): Promise<number> => {
  const agent = cluster.agent(at);
  const body = await cluster.answer(agent, agent.send({ kind: 'acl_revoke', by: root, revocation }));
  if (body.kind !== 'access_changed') throw new Error(`the revocation was answered ${JSON.stringify(body)}`);
  return body.revision;
};

/** Until it is answered with something else than UNAVAILABLE, as a client does. */
const write = async (
  cluster: ServerCluster,
  agent: Agent,
  key: string,
  sequence: number,
): Promise<string> => {
  for (;;) {
    const body = await cluster.answer(agent, agent.write([resolve(key, 'v')], sequence));
    if (body.kind !== 'failed') return body.kind;
    if (body.failure.code !== 'UNAVAILABLE') return body.failure.code;
    await cluster.time.run(50);
  }
};

/** From then on it is known that all servers know commands about access. */
const allKnowTicketKeys = (cluster: ServerCluster): Promise<void> =>
  cluster.time.until('there are keys for tickets', () =>
    cluster.ids.every((id) => cluster.server(id).inspect().store.ticketKeys !== undefined),
  );

const opened = async (cluster: ServerCluster, at: number): Promise<Agent> => {
  const agent = cluster.agent(at);
  await cluster.answer(agent, agent.open());
  return agent;
};

describe('policies that are applied', () => {
  test('reach the gateways of all servers at one revision, and judge writes whichever server they come through', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agents = [];
    for (const id of cluster.ids) agents.push(await opened(cluster, id));
    const revision = await apply(cluster, 2, documentOf('out/**'));
    for (const [index, agent] of agents.entries()) {
      expect(await write(cluster, agent, 'in/x', 1)).toBe('PERMISSION_DENIED');
      expect(await write(cluster, agent, `out/${index}`, 2)).toBe('written');
    }
    for (const id of cluster.ids) {
      expect(cluster.access(id)).toMatchObject([
        { revision, document: documentOf('out/**'), revocations: [] },
      ]);
    }
    const digests = cluster.ids.map((id) => cluster.server(id).stateDigest());
    await cluster.time.run(1000);
    expect(new Set(cluster.ids.map((id) => cluster.server(id).stateDigest())).size, digests.join()).toBe(1);
    const answer = await cluster.answer(agents[0] as Agent, (agents[0] as Agent).send({ kind: 'acl_get' }));
    expect(answer).toMatchObject({ kind: 'access', access: { revision, revocations: [] } });
  });

  test('are told before anything that is later, also in one turn', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const follower = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    const reader = cluster.agent(follower);
    const id = reader.send({ kind: 'subscribe', patterns: ['**'], start: { kind: 'present_state' } });
    await cluster.answer(reader, id);
    const writer = await opened(cluster, cluster.leader ?? 1);
    // The follower gets all of it at once.
    cluster.network.isolate(follower, cluster.ids);
    const revision = await apply(cluster, cluster.leader ?? 1, documentOf('**'));
    for (let number = 1; number <= 5; number += 1) await write(cluster, writer, 'k/v', number);
    cluster.network.heal();
    await cluster.time.until('the follower has it', () =>
      reader.pushes.some((push) => push.revision > revision),
    );
    const told = reader.accessAt[0] ?? Infinity;
    const later = reader.log.findIndex((event) => event.kind === 'push' && event.revision > revision);
    expect(told).toBeLessThanOrEqual(later);
  });

  test('survive restarts, elections and snapshots, and are told to a gateway first of all', async () => {
    const cluster = await ServerCluster.start({ servers: 3, logRetainBytes: 16 * 1024 });
    await allKnowTicketKeys(cluster);
    const away = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    cluster.crash(away);
    const at = cluster.leader ?? 1;
    const writer = await opened(cluster, at);
    await apply(cluster, at, documentOf('k/**'));
    await revoke(cluster, at, { ...theTest, name: 'eve' });
    for (let number = 1; number <= 60; number += 1) {
      const big = { ...resolve('k/v', 'x'.repeat(100_000)) };
      await cluster.answer(writer, writer.write([big], number + 10));
    }
    await cluster.start(away);
    await cluster.time.until('it has caught up', () => cluster.access(away).length > 0, 60_000);
    expect(cluster.access(away).at(-1)).toMatchObject({
      document: documentOf('k/**'),
      revocations: [{ kind: 'principal', name: 'eve' }],
    });
    await cluster.stop(away);
    await cluster.start(away);
    await cluster.time.run(2000);
    expect(cluster.access(away)[0]).toMatchObject({ document: documentOf('k/**') });
    const agent = await opened(cluster, away);
    expect(await write(cluster, agent, 'other/x', 1)).toBe('PERMISSION_DENIED');
    expect(await write(cluster, agent, 'k/y', 2)).toBe('written');
  });

  test('know whose a session is whose opening was on its way when the first of them were applied', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader ?? 1;
    const follower = cluster.ids.find((id) => id !== leader) ?? 1;
    const agent = cluster.agent(follower);
    const operator = cluster.agent(leader);
    const document = Buffer.from(canonicalJson(documentOf('out/**')));
    // What tells whose the sessions of the server are, once it has applied the policies, overtakes the opening.
    cluster.network.loseNextForward(follower, leader);
    const opening = agent.open();
    operator.send({ kind: 'acl_apply', by: root, document });
    await cluster.time.until('the policies are applied', () => cluster.access(follower).length > 0);
    expect(agent.answer(opening)).toBeUndefined();
    expect(await cluster.answer(agent, opening, 10_000)).toMatchObject({ kind: 'session_opened' });
    await cluster.time.run(1000);
    const write = agent.write([resolve('out/x', 'v')]);
    expect(await cluster.answer(agent, write)).toMatchObject({ kind: 'written' });
  });

  test('are refused while a server is in touch that could not apply them', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const old = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    await cluster.stop(old);
    await cluster.start(old, { version: 2 });
    await cluster.time.run(3000);
    const agent = cluster.agent(cluster.leader ?? 1);
    const document = Buffer.from(canonicalJson(documentOf('**')));
    const body = await cluster.answer(agent, agent.send({ kind: 'acl_apply', by: root, document }));
    expect(body).toMatchObject({ kind: 'failed', failure: { code: 'ACCESS_REFUSED' } });
  });
});

describe('a change of access while a server is away', () => {
  const stopOne = async (cluster: ServerCluster): Promise<number> => {
    const away = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    await cluster.stop(away);
    return away;
  };
  const asked = async (cluster: ServerCluster) => {
    const agent = cluster.agent(cluster.leader ?? 1);
    return await cluster.answer(agent, agent.send({ kind: 'acl_revoke', by: root, revocation: theTest }));
  };

  test('is made where it is known that all servers can apply it: they all had keys for tickets', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await allKnowTicketKeys(cluster);
    await stopOne(cluster);
    expect(await asked(cluster)).toMatchObject({ kind: 'access_changed' });
  });

  test('is refused where nobody can know of which version that server is', async () => {
    const cluster = new ServerCluster({ servers: 3 });
    for (const id of cluster.ids) await cluster.start(id, { version: 3 });
    await cluster.time.run(5000);
    expect(cluster.server(cluster.leader ?? 1).inspect().store.ticketKeys).toBeUndefined();
    const away = await stopOne(cluster);
    expect(await asked(cluster)).toMatchObject({
      failure: {
        code: 'ACCESS_REFUSED',
        message: expect.stringContaining(`(member ${away}) is not in touch`),
      },
    });
    await cluster.start(away, { version: 3 });
    await cluster.time.run(5000);
    expect(await asked(cluster)).toMatchObject({ kind: 'access_changed' });
  });

  test('is made where there was one before: all servers could apply that', async () => {
    const cluster = new ServerCluster({ servers: 3 });
    for (const id of cluster.ids) await cluster.start(id, { version: 3 });
    await cluster.time.run(5000);
    expect(await asked(cluster)).toMatchObject({ kind: 'access_changed' });
    expect(cluster.server(cluster.leader ?? 1).inspect().store.ticketKeys).toBeUndefined();
    await stopOne(cluster);
    const agent = cluster.agent(cluster.leader ?? 1);
    const restored = agent.send({ kind: 'acl_restore', by: root, revocation: theTest });
    expect(await cluster.answer(agent, restored)).toMatchObject({ kind: 'access_changed' });
  });
});

describe('policies that limit keys', () => {
  const limiting: PolicyDocument = {
    ...documentOf('**'),
    policies: { all: [{ allow: ['*'], on: '**' }, { allow: ['acl.change'] }, { limit: { keys: 2 } }] },
  };
  const asked = async (cluster: ServerCluster, document: PolicyDocument) => {
    const agent = cluster.agent(cluster.leader ?? 1);
    const bytes = Buffer.from(canonicalJson(document));
    return await cluster.answer(agent, agent.send({ kind: 'acl_apply', by: root, document: bytes }));
  };
  const refused = { kind: 'failed', failure: { code: 'ACCESS_REFUSED' } };

  test('are refused while a server does not know the limit, or may not, and others are not', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await allKnowTicketKeys(cluster);
    const old = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    await cluster.stop(old);
    expect(await asked(cluster, limiting)).toMatchObject(refused);
    await cluster.start(old, { version: 4 });
    await cluster.time.run(3000);
    expect(await asked(cluster, limiting)).toMatchObject(refused);
    expect(await asked(cluster, documentOf('**'))).toMatchObject({ kind: 'access_changed' });
  });

  test('count on all servers, and may be changed while one is away', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await allKnowTicketKeys(cluster);
    expect(await asked(cluster, limiting)).toMatchObject({ kind: 'access_changed' });
    const away = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    const agent = await opened(cluster, away);
    for (const [index, told] of ['written', 'written', 'QUOTA_EXCEEDED'].entries())
      expect(await write(cluster, agent, `k/${index}`, index + 1)).toBe(told);
    await cluster.stop(away);
    const more = {
      ...limiting,
      policies: { all: [...(limiting.policies['all'] ?? []), { limit: { keys: 3 } }] },
    };
    expect(await asked(cluster, more)).toMatchObject({ kind: 'access_changed' });
  });
});

describe('policies with names from DNS names', () => {
  const naming: PolicyDocument = {
    ...documentOf('**'),
    realms: { agents: { tls: { issuer: 'PEM', identity: 'dns' }, vars: { node: 'dns' } } },
  };
  const asked = async (cluster: ServerCluster) => {
    const agent = cluster.agent(cluster.leader ?? 1);
    const document = Buffer.from(canonicalJson(naming));
    return await cluster.answer(agent, agent.send({ kind: 'acl_apply', by: root, document }));
  };

  test('are refused while a server would take common names for them, or may', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await allKnowTicketKeys(cluster);
    const old = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    const refused = { kind: 'failed', failure: { code: 'ACCESS_REFUSED' } };
    await cluster.stop(old);
    expect(await asked(cluster)).toMatchObject(refused);
    await cluster.start(old, { version: 6 });
    await cluster.time.run(3000);
    expect(await asked(cluster)).toMatchObject(refused);
    await cluster.stop(old);
    await cluster.start(old);
    await cluster.time.run(3000);
    expect(await asked(cluster)).toMatchObject({ kind: 'access_changed' });
    await cluster.stop(old);
    // It is known by now that all can.
    expect(await asked(cluster)).toMatchObject({ kind: 'access_changed' });
  });
});

describe('quotas', () => {
  const limiting = (stored: string): PolicyDocument => ({
    ...documentOf('**'),
    policies: { all: [{ allow: ['*'], on: '**' }, { allow: ['acl.change'] }, { limit: { stored } }] },
  });
  const declare: Operation = { kind: 'declare', key: 'k/1', preconditions: {}, renew: true, tied: false };

  /** What is answered to one who is beyond its bytes, and gives a value up for an announcement. */
  const beyond = async (cluster: ServerCluster, at: number): Promise<string> => {
    await apply(cluster, at, limiting('1KiB'));
    const agent = await opened(cluster, at);
    for (const [index, key] of ['k/1', 'k/2'].entries())
      expect(await cluster.answer(agent, agent.write([resolve(key, 'some bytes')], index + 1))).toMatchObject(
        {
          kind: 'written',
        },
      );
    await apply(cluster, at, limiting('5B'));
    const body = await cluster.answer(agent, agent.write([declare], 3));
    expect(new Set(cluster.ids.map((id) => cluster.server(id).stateDigest())).size).toBe(1);
    return body.kind === 'failed' ? body.failure.code : body.kind;
  };

  test('are strict where all servers know that, and as before while one does not', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await allKnowTicketKeys(cluster);
    const old = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    await cluster.stop(old);
    await cluster.start(old, { version: 5 });
    await cluster.time.run(3000);
    expect(await beyond(cluster, cluster.leader ?? 1)).toBe('written');
    await cluster.stop(old);
    await cluster.start(old);
    await cluster.time.run(3000);
    await apply(cluster, cluster.leader ?? 1, limiting('1GiB'));
    expect(await beyond(cluster, cluster.leader ?? 1)).toBe('QUOTA_EXCEEDED');
  });
});

describe('a revocation', () => {
  test('ends the writes of the revoked on every server, also those that were on their way', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agents = [];
    for (const id of cluster.ids) agents.push(await opened(cluster, id));
    await revoke(cluster, 1);
    for (const agent of agents) expect(await write(cluster, agent, 'a', 1)).toBe('PERMISSION_DENIED');
    for (const id of cluster.ids) expect(cluster.access(id).at(-1)).toMatchObject({ revocations: [theTest] });
  });

  test('ends what the revoked has asked of a cut-off server about members, which comes into the log behind it', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await allKnowTicketKeys(cluster);
    await revoke(cluster, 1, { ...theTest, name: 'somebody-else' });
    const behind = cluster.ids.find((id) => id !== cluster.leader) ?? 1;
    const elsewhere = cluster.ids.find((id) => id !== behind) ?? 1;
    cluster.network.isolate(behind, cluster.ids);
    const by: Subject = {
      principal: { realm: 'agents', name: 'test' },
      credential: { realm: 'agents', name: 'test' },
    };
    const operator = cluster.agent(behind);
    const address = { peersAddress: 'north:7422', agentsUrl: 'wss://north:7421' };
    const request = operator.send({ kind: 'member_add', name: 'north', ...address, by });
    await revoke(cluster, elsewhere);
    cluster.network.heal();
    expect(await cluster.answer(operator, request)).toMatchObject({ failure: { code: 'PERMISSION_DENIED' } });
    expect(cluster.server(elsewhere).inspect().store.members).toEqual([]);
  });

  test('takes a revision of which subscriptions see nothing, and go on', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    const reader = cluster.agent(1);
    await cluster.answer(
      reader,
      reader.send({ kind: 'subscribe', patterns: ['**'], start: { kind: 'only_new' } }),
    );
    const revision = await revoke(cluster, 1, { ...theTest, name: 'eve' });
    const late = cluster.agent(1);
    await cluster.answer(
      late,
      late.send({ kind: 'subscribe', patterns: ['**'], start: { kind: 'present_state' } }),
    );
    const writer = await opened(cluster, 1);
    expect(await write(cluster, writer, 'a', 1)).toBe('written');
    for (const agent of [reader, late]) {
      await cluster.time.until('it is told', () => agent.pushes.some((push) => push.changes.length > 0));
      const seen = agent.pushes.flatMap((push) => push.changes.map(({ change }) => change.revision));
      expect(seen).toEqual([revision + 1]);
    }
  });
});

describe('a list', () => {
  test('that finds nothing for long reads on by itself, and names no key of others', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    const writer = await opened(cluster, 1);
    for (let number = 1; number <= 90; number += 1) {
      const keys = Array.from({ length: 250 }, (_, index) => resolve(`n/${number}-${index}/private`, 'v'));
      await cluster.answer(writer, writer.write(keys, number));
    }
    await cluster.answer(writer, writer.write([resolve('n/zz/out', 'v')], 91));
    const list = {
      kind: 'list',
      pattern: 'n/*/out',
      after: '',
      limit: 10,
      values: false,
      stale: false,
    } as const;
    const body = await cluster.answer(writer, writer.send(list));
    expect(body).toMatchObject({ kind: 'listed', futures: [{ key: 'n/zz/out' }], next: undefined });
  });
});

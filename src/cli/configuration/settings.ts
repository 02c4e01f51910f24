/**
 * Every setting of a server, once: its name, kind, limits, default and meaning. The check of server.yaml and the
 * list that `futurestore server --print-settings` prints are both made from this table.
 */
import * as v from 'valibot';
import {
  agentsUrl,
  choice,
  clusterId,
  duration,
  file,
  integer,
  integerOrAuto,
  listenAddress,
  memberName,
  network,
  origin,
  peerAddress,
  size,
  yesOrNo,
} from './scalars.ts';

const group = (issue: { readonly input: unknown }): string =>
  `must be a group of settings, got ${issue.input === null || issue.input === undefined ? 'nothing' : typeof issue.input}`;

const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;

const member = v.object(
  {
    id: v.pipe(
      integer(1, 2 ** 31),
      v.description('The number of the server in the cluster. Never used again for another server.'),
    ),
    name: v.pipe(
      memberName(),
      v.description('The CN of the certificate that the server shows to the others.'),
    ),
    peers: v.pipe(peerAddress(), v.description('Where the other servers reach it.')),
    agents: v.pipe(agentsUrl(), v.description('Where agents reach it.')),
  },
  group,
);

export const serverSettings = v.object(
  {
    cluster: v.object(
      {
        id: v.pipe(clusterId(), v.description('The same on all servers of the cluster; made by init.')),
        members: v.pipe(
          v.array(member, 'must be the list of all servers of the cluster'),
          v.minLength(1, 'must name at least one server'),
          v.maxLength(9, 'may name at most 9 servers: each one more makes every write slower'),
        ),
      },
      group,
    ),
    member: v.pipe(integer(1, 2 ** 31), v.description('Which of cluster.members this server is.')),
    data: v.pipe(
      file('a directory'),
      v.description('Where the server keeps its data. Made if missing, with mode 0700.'),
    ),
    join: v.pipe(
      v.optional(yesOrNo(), false),
      v.description(
        'Of a server that was added to a running cluster: while its data directory is empty, it waits for what the others send.',
      ),
    ),
    agents: v.object(
      {
        listen: v.pipe(listenAddress(), v.description('Where agents connect (wss).')),
        cert: v.pipe(file('a file'), v.description('The certificate shown to agents (PEM, with its chain).')),
        key: v.pipe(file('a file'), v.description('Its private key (PEM).')),
        advertise: v.optional(
          v.pipe(
            v.array(
              v.pipe(
                agentsUrl(),
                v.description(
                  "What agents are told as the cluster's addresses, such as a load balancer's. None: every server's own.",
                ),
              ),
              'must be a list of addresses',
            ),
            v.maxLength(9, 'may name at most 9 addresses'),
          ),
          [],
        ),
        proxy_protocol: v.optional(
          v.object(
            {
              trusted: v.optional(
                v.pipe(
                  v.array(
                    v.pipe(
                      network(),
                      v.description(
                        'Load balancers (IP addresses or networks) whose connections must begin with a PROXY header of version 2.',
                      ),
                    ),
                    'must be a list of addresses and networks',
                  ),
                  v.maxLength(256, 'may name at most 256 addresses and networks'),
                ),
                [],
              ),
            },
            group,
          ),
          {},
        ),
        connection_max_age: v.pipe(
          v.optional(
            v.pipe(
              duration('0ms', '365d'),
              v.check((ms) => ms === 0 || ms >= 60_000, 'must be 0ms (never) or at least 1m'),
            ),
            '0ms',
          ),
          v.description(
            'After about this time (20 % more or less) an agent is asked to connect again, so that agents spread over the servers. 0ms: never.',
          ),
        ),
        origins: v.optional(
          v.pipe(
            v.array(
              v.pipe(
                origin(),
                v.description(
                  'The web pages that may connect, by their origin (https://host). Agents send none.',
                ),
              ),
              'must be a list of origins',
            ),
            v.maxLength(64, 'may name at most 64 origins'),
          ),
          [],
        ),
      },
      group,
    ),
    peers: v.object(
      {
        listen: v.pipe(listenAddress(), v.description('Where the other servers connect.')),
        ca: v.pipe(file('a file'), v.description("The CA of the servers' certificates (PEM).")),
        cert: v.pipe(
          file('a file'),
          v.description('The certificate shown to other servers; its CN is the name of the server (PEM).'),
        ),
        key: v.pipe(file('a file'), v.description('Its private key (PEM).')),
      },
      group,
    ),
    admin: v.object(
      {
        listen: v.pipe(
          listenAddress(),
          v.description(
            'Where /livez, /readyz and /metrics are served, without TLS: keep it on a loopback address.',
          ),
        ),
      },
      group,
    ),
    policy: v.pipe(
      file('a file'),
      v.description('The realms, policies and bindings of agents. The same on all servers.'),
    ),
    election_timeout: v.pipe(
      v.optional(duration('100ms', '1m'), '1s'),
      v.description(
        'How long without a word from the leader until another is elected; drawn from this to twice this.',
      ),
    ),
    heartbeat_interval: v.pipe(
      v.optional(duration('10ms', '10s'), '100ms'),
      v.description(
        'How often the leader tells the others that it is there: at most a third of election_timeout.',
      ),
    ),
    log: v.optional(
      v.object(
        {
          level: v.pipe(
            v.optional(choice(logLevels), 'info'),
            v.description('The least level of what is logged.'),
          ),
        },
        group,
      ),
      {},
    ),
    log_retain: v.pipe(
      v.optional(size('1MiB', '16GiB'), '64MiB'),
      v.description(
        'How much of the replicated log is kept for servers that were away; longer ones get a snapshot.',
      ),
    ),
    stop_grace: v.pipe(
      v.optional(duration('0ms', '10m'), '5s'),
      v.description('How long a stopping server spreads the good-byes to its agents.'),
    ),
    gateway: v.optional(
      v.object(
        {
          workers: v.pipe(
            v.optional(integerOrAuto(0, 16), 'auto'),
            v.description(
              'Threads that serve agents (TLS, parsing, policies). 0: none beside the main one. auto: one for each core but one, at most 4.',
            ),
          ),
        },
        group,
      ),
      {},
    ),
    limits: v.optional(
      v.object(
        {
          connections: v.pipe(
            v.optional(integer(1, 1_000_000), 20_000),
            v.description('Connections of agents at most; more are refused.'),
          ),
          unauthenticated_connections: v.pipe(
            v.optional(integer(1, 1_000_000), 1000),
            v.description('Connections at most that have not yet said who they are.'),
          ),
        },
        group,
      ),
      {},
    ),
  },
  group,
);

/** As written in the file: durations in milliseconds, sizes in bytes, addresses parsed, paths not yet resolved. */
export type ServerSettings = v.InferOutput<typeof serverSettings>;

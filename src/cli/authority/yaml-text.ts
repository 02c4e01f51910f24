/** The files that `init` and `cert` write: with the comments that whoever opens them needs. */

/** A YAML scalar: quoted unless it can be nothing but this text. */
const scalar = (text: string): string =>
  /^[A-Za-z./][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*$/.test(text) &&
  !/^(true|false|null|yes|no|on|off|y|n)$/i.test(text)
    ? text
    : JSON.stringify(text);

/** A client's profile. Paths are relative to it. */
export const profileText = (profile: {
  readonly endpoints: readonly string[];
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly owner: string;
}): string => `# The profile of ${profile.owner}: where the servers are and who connects. Paths are relative to this file.
endpoints:
${profile.endpoints.map((endpoint) => `  - ${scalar(endpoint)}\n`).join('')}# Who signed the servers' certificates, and this client's own certificate and private key.
ca: ${scalar(profile.ca)}
cert: ${scalar(profile.cert)}
key: ${scalar(profile.key)}
`;

export interface PlannedMember {
  readonly id: number;
  readonly name: string;
  /** host:port */
  readonly peers: string;
  /** wss://host:port */
  readonly agentsUrl: string;
}

export interface PlannedServer extends PlannedMember {
  readonly agentsListen: string;
  readonly peersListen: string;
  readonly adminListen: string;
}

/** One line of cluster.members. */
export const memberLine = ({ id, name, peers, agentsUrl }: PlannedMember): string =>
  `    - { id: ${id}, name: ${scalar(name)}, peers: ${scalar(peers)}, agents: ${scalar(agentsUrl)} }\n`;

const joinLines = `# It was added to a running cluster: while its data directory is empty, it waits for what the others send.
join: true
`;

const hostOf = (peers: string): string => peers.slice(0, peers.lastIndexOf(':'));

const sharedLines = `# Several servers share this machine's processors: threads for agents would take them from the other servers.
gateway: { workers: 0 }
`;

/** One server's server.yaml. `join`: of one that is added to a running cluster. */
export const serverText = (
  clusterId: string,
  members: readonly PlannedMember[],
  self: PlannedServer,
  join: boolean,
): string => `# One server of the cluster. Paths are relative to this file.
# All settings and their meaning: futurestore server --print-settings
cluster:
  # The same in all server.yaml of the cluster.
  id: ${JSON.stringify(clusterId)}
  members:
${members.map(memberLine).join('')}
# Which of the members this server is.
member: ${self.id}
data: data
${join ? joinLines : ''}
# Where agents connect.
agents: { listen: ${scalar(self.agentsListen)}, cert: server.pem, key: server.key }
# Where the other servers connect.
peers: { listen: ${scalar(self.peersListen)}, ca: ../ca/servers.pem, cert: peer.pem, key: peer.key }
# /livez, /readyz and /metrics, without TLS.
admin: { listen: ${scalar(self.adminListen)} }

policy: ../policy.yaml

election_timeout: 1s
heartbeat_interval: 100ms
log: { level: info }
${members.some(({ id, peers }) => id !== self.id && hostOf(peers) === hostOf(self.peers)) ? sharedLines : ''}`;

/** The policies of a new cluster. */
export const policyText =
  (): string => `# Who may do what. Nothing is allowed that no policy allows; deny beats allow.
# A pattern is a key with * for exactly one segment, or a last ** for one or more; \${node} is the agent's own name.
realms:
  # The agents whose certificates ca/agents.pem signed; their name is the certificate's CN.
  agents:
    tls: { issuer: ca/agents.pem, identity: cn }
    vars: { node: cn }

policies:
  agent:
    - allow: [get, await, list, subscribe]
      on: ["nodes/\${node}/**", "shared/**"]
    - allow: [declare, resolve, reject, touch, delete]
      on: ["nodes/\${node}/out/**", "nodes/\${node}/run"]
  admin:
    - allow: ["*"]
      on: "**"
    # In no wildcard: they must be named.
    - allow: [cluster.status, cluster.drain, cluster.rebalance, member.list, member.change, snapshot.save]
    - allow: [acl.get, acl.change]

bindings:
  - { realm: agents, policies: [agent] }
  - { realm: agents, principal: admin, policies: [admin] }
`;

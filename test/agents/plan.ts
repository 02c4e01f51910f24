/** Who there is, what each of them waits for, what is published, and what the policies say: all by the number of agents. */
import type { PolicyDocument } from './policy-model.ts';

export interface PlannedAgent {
  readonly index: number;
  /** The CN of its certificate, and so the name of its principal. */
  readonly name: string;
  /** In an extension of its certificate. */
  readonly role: string;
}

/** The realm of the agents' certificates. */
export const realm = 'puppet';

const roleCount = 16;

export const planAgent = (index: number): PlannedAgent => ({
  index,
  name: `agent${index}`,
  role: `r${index % roleCount}`,
});

export const planAgents = (first: number, end: number): PlannedAgent[] =>
  Array.from({ length: Math.max(0, end - first) }, (_, offset) => planAgent(first + offset));

/** The keys that it awaits, one request each. */
export const waitsOf = ({ name, role }: PlannedAgent): readonly string[] => [
  `nodes/${name}/in/address`,
  `nodes/${name}/boot/ready`,
  `roles/${role}/ready`,
];

/** What it follows. */
export const patternOf = ({ name }: PlannedAgent): string => `nodes/${name}/in/**`;

/** About one in fifty uses the client library; the others cost less memory. */
export const usesLibrary = ({ index }: PlannedAgent): boolean => index % 49 === 27;

export const isRevoked = ({ index }: PlannedAgent): boolean => index % 20 === 7;

/** By its name; those of one role are besides. */
const isNarrowed = ({ index }: PlannedAgent): boolean => index % 20 === 11;
const narrowedRole = 'r3';

/** They stop reading before they are revoked; more would only cost time. */
const sleepersMax = 2;
const bulkKeysPerSleeper = 96;
const bulkValueBytes = 64 * 1024;

export const planSleepers = (agents: number): PlannedAgent[] =>
  planAgents(0, agents)
    .filter((agent) => isRevoked(agent) && !usesLibrary(agent))
    .slice(0, sleepersMax);

const decoyEvery = 10;

/** Published in every round. Some are nobody's: what no agent may see must reach none. */
export const usualKeys = (agents: number): string[] => [
  ...planAgents(0, agents).flatMap(({ index, name }) => [
    `nodes/${name}/in/address`,
    `nodes/${name}/in/deep/er/port`,
    `nodes/${name}/boot/ready`,
    ...(index % decoyEvery === 0 ? [`nodes/${name}/vault/in/address`, `nodes/${name}/in`] : []),
  ]),
  ...Array.from({ length: roleCount }, (_, role) => [`roles/r${role}/ready`, `roles/r${role}/other`]).flat(),
  'shared/motd',
  'nodes/nobody/in/address',
];

/** More than the sockets of those who do not read can take. */
export const bulkKeys = (agents: number): string[] =>
  planSleepers(agents).flatMap(({ name }) =>
    Array.from({ length: bulkKeysPerSleeper }, (_, number) => `nodes/${name}/in/bulk/${number}`),
  );

export const isBulk = (key: string): boolean => key.includes('/in/bulk/');

/** What is not published in every round is in its first generation whenever it comes. */
export const generationOf = (key: string, round: number): number => (isBulk(key) ? 1 : round);

/** Every key's value, by itself, so that whoever gets a value can tell whether it is the right one. */
export const valueOf = (key: string, round: number): string => {
  const text = `${key} in round ${round}`;
  return isBulk(key) ? text.padEnd(bulkValueBytes, '.') : text;
};

const nodePolicy = [
  { allow: ['get', 'await', 'list', 'subscribe'], on: ['nodes/${node}/**', 'roles/${role}/**'] },
  { allow: ['declare', 'resolve', 'reject', 'touch', 'delete'], on: 'nodes/${node}/out/**' },
  { deny: ['*'], on: 'nodes/*/vault/**' },
];

/** `base`: the cluster's own document, with its administrator. `issuer`: PEM. */
export const policiesAtFirst = (base: PolicyDocument, issuer: string): PolicyDocument => ({
  realms: {
    ...base.realms,
    [realm]: { tls: { issuer, identity: 'cn' }, vars: { node: 'cn', role: 'extension:pp_role' } },
  },
  policies: { ...base.policies, node: nodePolicy },
  bindings: [...base.bindings, { realm, policies: ['node'] }],
});

const reading = ['get', 'await', 'list', 'subscribe'];

/** Some lose what they follow, by their names, and all of one role what they share. */
export const policiesNarrowed = (first: PolicyDocument, agents: number): PolicyDocument => ({
  realms: first.realms,
  policies: {
    ...first.policies,
    no_input: [{ deny: reading, on: 'nodes/${node}/in/**' }],
    no_role: [{ deny: reading, on: 'roles/${role}/**' }],
  },
  bindings: [
    ...first.bindings,
    ...planAgents(0, agents)
      .filter(isNarrowed)
      .map(({ name }) => ({ realm, principal: name, policies: ['no_input'] })),
    { realm, where: { role: narrowedRole }, policies: ['no_role'] },
  ],
});

/** What agents are told of keys that are not theirs: that they may not, in the same words whether there is such a key or not. */
import type { AnswerBody, RequestBody } from '../../src/protocol/index.ts';
import { scopeOf } from './expectation.ts';
import type { LightAgent } from './light-agent.ts';
import { planAgent } from './plan.ts';
import type { PolicyDocument } from './policy-model.ts';

interface Probe {
  readonly verb: string;
  /** Key or pattern. */
  readonly on: string;
  readonly body: RequestBody;
}

const keyProbes = (key: string): Probe[] => [
  { verb: 'get', on: key, body: { kind: 'get', key, stale: false } },
  { verb: 'get', on: key, body: { kind: 'get', key, stale: true } },
  { verb: 'await', on: key, body: { kind: 'await', alternatives: [[key]] } },
];

const patternProbes = (pattern: string): Probe[] => [
  {
    verb: 'list',
    on: pattern,
    body: { kind: 'list', pattern, after: '', limit: 10, values: true, stale: false },
  },
  {
    verb: 'subscribe',
    on: pattern,
    body: { kind: 'subscribe', patterns: [pattern], start: { kind: 'present_state' } },
  },
];

const writeProbe = (key: string): Probe => ({
  verb: 'resolve',
  on: key,
  body: {
    kind: 'write',
    sequence: 1,
    answeredBelow: 1,
    operations: [
      {
        kind: 'resolve',
        key,
        preconditions: {},
        value: Buffer.from('theirs'),
        contentType: 'text/plain; charset=utf-8',
        sensitive: false,
        supersede: true,
      },
    ],
  },
});

/** What a refusal says, with the key or pattern that the agent named itself taken out. */
const toldBy = (answer: AnswerBody, on: string): string =>
  answer.kind === 'failed'
    ? `${answer.failure.code}: ${answer.failure.message.replaceAll(on, '…')}`
    : answer.kind;

export interface ForeignReport {
  readonly asked: number;
  readonly problems: readonly string[];
}

/** `agents`: of the whole cluster. To be called when values are there. */
export const askForForeign = async (
  agent: LightAgent,
  document: PolicyDocument,
  agents: number,
): Promise<ForeignReport> => {
  const { name, index } = agent.plan;
  const other = planAgent((index + 1) % agents).name;
  const scope = scopeOf(document, agent.plan);
  const session = index.toString(16).padStart(32, '0');
  await agent.ask({ kind: 'open_session', session, graceMs: 1000, resume: false });
  const probes = [
    ...keyProbes(`nodes/${other}/in/address`),
    ...keyProbes(`nodes/${other}/in/nothing`),
    ...keyProbes(`nodes/${name}/vault/in/address`),
    ...keyProbes('shared/motd'),
    ...keyProbes('shared/nothing'),
    ...['nodes/**', 'nodes/*/in/**', `nodes/${other}/**`, `nodes/${name}/**`, '**', 'shared/*'].flatMap(
      patternProbes,
    ),
    writeProbe(`nodes/${name}/in/address`),
    writeProbe(`nodes/${other}/out/x`),
  ];
  const problems: string[] = [];
  const told = new Map<string, string>();
  for (const { verb, on, body } of probes) {
    const allowed =
      body.kind === 'list' || body.kind === 'subscribe'
        ? scope.allowsPattern(verb, on)
        : scope.allows(verb, on);
    if (allowed) problems.push(`${name}: ${verb} ${on} is allowed by the model: nothing is tried with it`);
    const text = toldBy(await agent.ask(body), on);
    if (!text.startsWith('PERMISSION_DENIED: '))
      problems.push(`${name}: ${verb} ${on} was answered with ${text}`);
    const before = told.get(verb);
    if (before !== undefined && before !== text)
      problems.push(`${name}: ${verb} is refused in two ways, which tells what is there: ${before}; ${text}`);
    told.set(verb, text);
  }
  return { asked: probes.length, problems };
};

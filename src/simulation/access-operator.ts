/**
 * The one who changes policies, revokes and restores while the cluster runs, through a real client, one thing after the
 * other. What has no clear answer is asked again: asked twice it comes to the same.
 */
import { Client, FuturestoreError } from '../client/index.ts';
import { protobufCodec } from '../protocol/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import { accessOperatorOf, agentRealm, documentOf, nameOf } from './agent-policies.ts';
import type { AccessChecks } from './checks/index.ts';
import { clientEnvironment } from './client-environment.ts';
import { Life, type VirtualTime } from './clock.ts';
import type { Fault } from './plan.ts';
import type { Random } from './random.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export interface AccessOperatorWorld {
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly counts: Counts;
  readonly network: AgentNetwork;
  /** How many agents there are: they have the numbers from 1 on. */
  readonly agents: number;
  readonly soleConnections: boolean;
  readonly endpoints: readonly string[];
  readonly random: Random;
  readonly access: AccessChecks;
  readonly fail: (check: string, problem: string) => void;
}

type AccessFault = Extract<Fault, { readonly kind: 'apply_policies' | 'revoke' | 'restore' }>;
type AccessWish = AccessFault extends infer One ? (One extends Fault ? Omit<One, 'atMs'> : never) : never;

interface Asked {
  readonly wish: AccessWish;
  readonly onAnswer: (changed: boolean) => void;
}

/** Of a member whose version nobody knows. */
const notInTouch = /\(member (\d+)\) is not in touch/;

const requestTimeoutMs = 3000;
const againMs = 300;

/** ACCESS_REFUSED: the server that was asked has been started again, or had decided before; which is not known. */
const again = new Set([
  'UNAVAILABLE',
  'TIMED_OUT',
  'OUTCOME_UNKNOWN',
  'CONNECTION_CLOSED',
  'LIMIT_EXCEEDED',
  'ACCESS_REFUSED',
]);

export class AccessOperator {
  readonly #world: AccessOperatorWorld;
  readonly #waiting: Asked[] = [];
  #client: Client | undefined;
  /** What is being asked for. */
  #current: Asked | undefined;
  /** The answer after which it is asked again; undefined while there is none yet. */
  #refusal: FuturestoreError | undefined;

  constructor(world: AccessOperatorWorld) {
    this.#world = world;
  }

  /** Nothing is being asked for. */
  get idle(): boolean {
    return this.#current === undefined;
  }

  /** What it asks for, in words; undefined: nothing. */
  get asked(): string | undefined {
    if (this.#current === undefined) return undefined;
    const { atMs: _atMs, ...wish } = { atMs: 0, ...this.#current.wish };
    const last = this.#refusal === undefined ? 'no answer yet' : this.#refusal.message;
    return `${JSON.stringify(wish)} (${last})`;
  }

  /** The member for whose absence it was refused just now, and nothing of it is under way. */
  get refusedFor(): number | undefined {
    if (this.#refusal?.code !== 'ACCESS_REFUSED') return undefined;
    const [, member] = notInTouch.exec(this.#refusal.message) ?? [];
    return member === undefined ? undefined : Number(member);
  }

  /** Takes the refusal for good, and for all else that it was to ask for. Only between an answer and the next request. */
  giveUp(): void {
    const { trace, counts } = this.#world;
    trace.say(`the access operator gives up: ${this.asked ?? ''} and ${this.#waiting.length} more`);
    const given = this.#current === undefined ? [] : [this.#current, ...this.#waiting.splice(0)];
    for (const { wish, onAnswer } of given) {
      counts.add(`${wish.kind}: given up`);
      onAnswer(false);
    }
    this.#current = undefined;
    this.#refusal = undefined;
  }

  /** `onAnswer` is told whether anything is different now, as far as the answer says. */
  begin(wish: AccessWish, onAnswer: (changed: boolean) => void = () => undefined): void {
    this.#waiting.push({ wish, onAnswer });
    if (this.idle) this.#next();
  }

  /** Everything for everybody again. Whether it is so; else it is asked for. */
  opened(): boolean {
    const { access, agents } = this.#world;
    if (!this.idle) return false;
    const numbers = Array.from({ length: agents }, (_, at) => at + 1);
    const principals = numbers.map((agent) => ({ agent, realm: agentRealm, name: nameOf(agent) }));
    const revoked = principals.filter((principal) => access.isRevoked(principal));
    for (const { agent } of revoked) this.begin({ kind: 'restore', agent });
    if (revoked.length > 0) return false;
    if (!principals.some((principal) => access.isRestricted(principal))) return true;
    this.begin({ kind: 'apply_policies', restrictions: [] });
    return false;
  }

  #connected(): Client {
    const { endpoints, network, agents, random } = this.#world;
    this.#client ??= new Client(
      { endpoints, name: 'access-operator', connectTimeoutMs: 3000 },
      clientEnvironment(
        network,
        accessOperatorOf(agents),
        new Life('access operator'),
        random,
        protobufCodec,
      ),
    );
    return this.#client;
  }

  #next(): void {
    const asked = this.#waiting.shift();
    this.#current = asked;
    if (asked !== undefined) this.#ask(asked, false);
  }

  /** `isAgain`: what was asked before may have been done. */
  #ask(asked: Asked, isAgain: boolean): void {
    const { wish, onAnswer } = asked;
    const { trace, time, counts, fail } = this.#world;
    this.#refusal = undefined;
    trace.say(`the access operator asks: ${JSON.stringify(wish)}`);
    this.#request(this.#connected(), wish).then(
      ({ revision, unchanged }) => {
        trace.say(`the access operator was answered: ${unchanged ? 'unchanged' : 'changed'} @${revision}`);
        counts.add(`${wish.kind}: ${unchanged ? 'unchanged' : 'changed'}`);
        onAnswer(!unchanged || isAgain);
        this.#next();
      },
      (error: unknown) => {
        if (!(error instanceof FuturestoreError) || !again.has(error.code)) {
          fail('access operator', `${wish.kind}: ${String(error)}`);
          return;
        }
        counts.add(`${wish.kind}: ${error.code}`);
        trace.say(`the access operator was answered: ${error.code}: ${error.message}`);
        this.#refusal = error;
        time.after(againMs, time.world, 'input', () => {
          if (this.#current === asked) this.#ask(asked, true);
        });
      },
    );
  }

  #request(client: Client, wish: AccessWish): ReturnType<Client['revoke']> {
    const options = { timeoutMs: requestTimeoutMs };
    switch (wish.kind) {
      case 'apply_policies': {
        const { agents, soleConnections } = this.#world;
        const document = documentOf(agents, wish.restrictions, soleConnections);
        // Who it is stands from its dialing: no certificate shows that it may still change policies then.
        return client.applyPolicies(Buffer.from(JSON.stringify(document)), { ...options, force: true });
      }
      case 'revoke':
      case 'restore':
        return client[wish.kind]({ kind: 'principal', realm: agentRealm, name: nameOf(wish.agent) }, options);
      default:
        return wish satisfies never;
    }
  }
}

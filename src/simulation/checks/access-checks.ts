/**
 * Who may do what, as the log has it: every change of policies and revocations by its revision. Writes are held against
 * what was true at their place in the log; what gateways send, against the newest that they were told, and against what
 * was true when that which they show came about.
 */
import type { ReceivedServerFrame } from '../../protocol/index.ts';
import {
  compilePolicies,
  keyVerbs,
  type KeyVerb,
  type Policies,
  type PolicyDocument,
  type Scope,
} from '../../scopes/index.ts';
import type { Command, CommandResult, Subject } from '../../store/index.ts';
import { violated } from './violation.ts';

type Principal = Subject['principal'];

const fullName = ({ realm, name }: Principal): string => `${realm}:${name}`;

/** What counts from a revision on. */
class AccessVersion {
  readonly revision: number;
  /** undefined: none were applied, and the policy files allow everything. */
  readonly policies: Policies | undefined;
  /** As `fullName`. */
  readonly revoked: ReadonlySet<string>;
  readonly #scopes = new Map<string, Scope>();

  constructor(revision: number, policies: Policies | undefined, revoked: ReadonlySet<string>) {
    this.revision = revision;
    this.policies = policies;
    this.revoked = revoked;
  }

  scopeOf(principal: Principal): Scope | undefined {
    const name = fullName(principal);
    let scope = this.#scopes.get(name);
    if (scope === undefined && this.policies !== undefined) {
      scope = this.policies.scopeFor(principal);
      this.#scopes.set(name, scope);
    }
    return scope;
  }

  allows(principal: Principal, verb: KeyVerb, key: string): boolean {
    if (this.revoked.has(fullName(principal))) return false;
    return this.scopeOf(principal)?.allows(verb, key) ?? true;
  }

  restricts(principal: Principal): boolean {
    if (this.revoked.has(fullName(principal))) return true;
    const scope = this.scopeOf(principal);
    if (scope === undefined) return false;
    return keyVerbs.some((verb) => !scope.allowsPattern(verb, '**')) || scope.limits.pending !== Infinity;
  }
}

/** Who sends what to whom. */
export interface Sending {
  /** 'server 3' of member 3. */
  readonly server: string;
  /** The revision of the last change of access that its gateway was told; 0: of none. */
  readonly toldRevision: number;
  readonly to: Principal;
}

export class AccessChecks {
  readonly #versions: AccessVersion[] = [new AccessVersion(0, undefined, new Set())];

  /** Whether the cluster decides over access. */
  get active(): boolean {
    return this.#versions.length > 1;
  }

  #asOf(revision: number): AccessVersion {
    const found = this.#versions.findLast((version) => version.revision <= revision);
    return found ?? violated('access', `there is no revision ${revision}`);
  }

  get #current(): AccessVersion {
    return this.#asOf(Infinity);
  }

  // ---- the log ----

  /** A command about access took effect. */
  applied(command: Command, result: CommandResult | undefined): void {
    if (result?.kind !== 'access' || result.unchanged) return;
    const { policies, revoked } = this.#current;
    const { revision } = result;
    switch (command.kind) {
      case 'acl_apply': {
        const document = JSON.parse(Buffer.from(command.document).toString()) as PolicyDocument;
        this.#versions.push(new AccessVersion(revision, compilePolicies(document), revoked));
        return;
      }
      case 'acl_revoke':
      case 'acl_restore': {
        const { revocation } = command;
        if (revocation.kind !== 'principal') return violated('access', `nobody revokes a ${revocation.kind}`);
        const next = new Set(revoked);
        if (command.kind === 'acl_revoke') next.add(fullName(revocation));
        else next.delete(fullName(revocation));
        this.#versions.push(new AccessVersion(revision, policies, next));
        return;
      }
      default:
        violated('access', `a ${command.kind} was answered as a change of access`);
    }
  }

  /** A write was looked at for the first time, behind all that `applied` was told. */
  judged({ principal, operations }: Extract<Command, { kind: 'write' }>, result: CommandResult): void {
    if (!this.active) return;
    const [realm = '', name = ''] = principal.split(':');
    const version = this.#current;
    const forbidden = operations.find(({ kind, key }) => !version.allows({ realm, name }, kind, key));
    const refused = result.kind === 'failed' && result.failure.code === 'PERMISSION_DENIED';
    if (refused === (forbidden !== undefined)) return;
    const what = operations.map(({ kind, key }) => `${kind} ${key}`).join(', ');
    const outcome = refused ? 'refused' : 'not refused';
    violated(
      'writes are allowed',
      `${principal} was ${outcome} ${what}; what counts is of revision ${version.revision}`,
    );
  }

  // ---- what is sent ----

  /** A gateway gives a frame to a socket, or one that had to wait there leaves the server. */
  sent(sending: Sending, { answers, pushes }: ReceivedServerFrame): void {
    this.#notRevoked(sending);
    for (const { body } of answers) {
      if (body.kind === 'got' && body.future !== undefined)
        this.#shown(sending, 'get', body.future.key, body.revision);
      else if (body.kind === 'listed')
        for (const { key } of body.futures) this.#shown(sending, 'list', key, body.revision);
      else if (body.kind === 'awaited')
        for (const { key, revision } of body.futures) this.#shown(sending, 'await', key, revision);
    }
    this.#pushed(sending, pushes);
  }

  #notRevoked({ server, toldRevision, to }: Sending): void {
    if (!this.#asOf(toldRevision).revoked.has(fullName(to))) return;
    violated('the revoked are closed', `${server} sends to ${fullName(to)}, revoked at ${toldRevision}`);
  }

  #pushed(sending: Sending, pushes: ReceivedServerFrame['pushes']): void {
    for (const { changes } of pushes) {
      for (const change of changes) {
        const { key, revision } = change.kind === 'future' ? change.future : change;
        this.#shown(sending, 'subscribe', key, revision);
      }
    }
  }

  #shown({ server, toldRevision, to }: Sending, verb: KeyVerb, key: string, revision: number): void {
    const version = this.#asOf(Math.max(toldRevision, revision));
    if (version.allows(to, verb, key)) return;
    violated(
      'shown to whom it may be',
      `${server} shows ${key} (${verb}) as of revision ${revision} to ${fullName(to)}, who may not see it ` +
        `since ${version.revision}; it had been told of access as of ${toldRevision}`,
    );
  }

  /** Connections that a gateway has kept open, having been told. */
  kept({ server, toldRevision, to }: Sending): void {
    if (!this.#asOf(toldRevision).revoked.has(fullName(to))) return;
    violated('the revoked are closed', `${server} keeps a connection of ${fullName(to)} open`);
  }

  // ---- what clients may be told ----

  /** It may have been refused something, at some time so far. */
  wasRestricted(principal: Principal): boolean {
    return this.#versions.some((version) => version.restricts(principal));
  }

  wasRevoked(principal: Principal): boolean {
    return this.#versions.some(({ revoked }) => revoked.has(fullName(principal)));
  }

  isRestricted(principal: Principal): boolean {
    return this.#current.restricts(principal);
  }

  isRevoked(principal: Principal): boolean {
    return this.#current.revoked.has(fullName(principal));
  }

  /** Everything was applied by all members: each of their gateways goes by what counts. */
  converged(gateways: Iterable<Pick<Sending, 'server' | 'toldRevision'>>): void {
    const { revision } = this.#current;
    for (const { server, toldRevision } of gateways) {
      const known = this.#asOf(toldRevision).revision;
      if (known !== revision)
        violated('same access', `${server} goes by access as of ${known}, the cluster by ${revision}`);
    }
  }
}

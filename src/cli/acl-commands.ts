/** acl apply|get|check|test|diff|revoke|revocations|restore. */
import type { Command } from 'commander';
import type { AccessState, Revocation } from '../protocol/index.ts';
import type { Decision, Policies, PolicyChange, PolicyDocument, Principal } from '../scopes/index.ts';
import type { ClientOptions } from './command-options.ts';
import { clientCommand, failure, timeoutOf, wholeNumber, withClient, writeJson } from './command-options.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { Table, visible } from './output.ts';

interface PolicySource extends ClientOptions {
  /** A policy file instead of the cluster's policies. */
  readonly policy?: string;
}

const noneApplied =
  "no policies have been applied: each server's policy file counts; give one with --policy, or apply it with futurestore acl apply";

const documentOf = async ({ document, revision }: AccessState): Promise<PolicyDocument> => {
  if (revision === 0) throw await failure('NOT_FOUND', noneApplied);
  return JSON.parse(Buffer.from(document).toString('utf8')) as PolicyDocument;
};

const compiled = async (document: PolicyDocument, what: string): Promise<Policies> => {
  const { compilePolicies, PolicyError } = await import('../scopes/index.ts');
  try {
    return compilePolicies(document);
  } catch (error) {
    if (error instanceof PolicyError)
      throw await failure('CONFIGURATION_INVALID', `${what}: ${error.message}`);
    throw error;
  }
};

const readFile = async (file: string): Promise<PolicyDocument> => {
  const { readPolicyDocument } = await import('./server-files.ts');
  return readPolicyDocument(file);
};

/** For the whole cluster: a path in it is one on each server. */
const readFileToApply = async (file: string): Promise<PolicyDocument> => {
  const { readFileSync } = await import('node:fs');
  const path = await import('node:path');
  const { parsePolicyFile } = await import('../gateway/index.ts');
  const document = await readFile(file);
  for (const [name, { tls }] of Object.entries(parsePolicyFile(readFileSync(file, 'utf8'), file).realms)) {
    if (tls?.crl === undefined || path.isAbsolute(tls.crl)) continue;
    throw await failure(
      'CONFIGURATION_INVALID',
      `${file}: realms.${name}.tls.crl is ${tls.crl}: write the whole path that it has on each server`,
    );
  }
  return document;
};

/** What `--policy` names, or the cluster's. */
const policiesFor = async (environment: CommandEnvironment, options: PolicySource): Promise<Policies> => {
  if (options.policy !== undefined) return compiled(await readFile(options.policy), options.policy);
  const timeoutMs = await timeoutOf(options);
  let state: AccessState | undefined;
  await withClient(environment, options, async (client) => {
    state = await client.access({ timeoutMs });
  });
  if (state === undefined) throw new Error('there was no answer');
  return compiled(await documentOf(state), 'the policies of the cluster');
};

// ---- differences ----

const short = (part: unknown): string => {
  const text = JSON.stringify(part, (name, value: unknown) => {
    // What is long is of no use on one line: certificates and key sets.
    const isLong = (name === 'issuer' || name === 'keys') && typeof value === 'string' && value.length > 80;
    return isLong ? `(${value.length} characters)` : value;
  });
  return visible(text);
};

const writeChanges = (environment: CommandEnvironment, changes: readonly PolicyChange[]): void => {
  for (const change of changes) {
    if (change.kind !== 'added') environment.stdout.write(`- ${change.place} ${short(change.before)}\n`);
    if (change.kind !== 'removed') environment.stdout.write(`+ ${change.place} ${short(change.after)}\n`);
  }
};

const emptyDocument: PolicyDocument = { realms: {}, policies: {}, bindings: [] };

const changesTo = async (state: AccessState, after: PolicyDocument): Promise<readonly PolicyChange[]> => {
  const { policyChanges } = await import('../scopes/index.ts');
  return policyChanges(state.revision === 0 ? emptyDocument : await documentOf(state), after);
};

const diff = async (environment: CommandEnvironment, file: string, options: ClientOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  const after = await readFile(file);
  await compiled(after, file);
  await withClient(environment, options, async (client) => {
    const state = await client.access({ timeoutMs });
    const changes = await changesTo(state, after);
    if (options.json === true) writeJson(environment, { revision: state.revision, changes });
    else if (changes.length === 0) environment.stdout.write('no differences\n');
    else writeChanges(environment, changes);
  });
};

interface ApplyOptions extends ClientOptions {
  readonly force?: true;
  readonly ifRevision?: string;
}

const apply = async (environment: CommandEnvironment, file: string, options: ApplyOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  const asked =
    options.ifRevision === undefined ? undefined : wholeNumber('--if-revision', options.ifRevision, 0);
  const after = await readFileToApply(file);
  await compiled(after, file);
  const { canonicalJson } = await import('../scopes/index.ts');
  await withClient(environment, options, async (client) => {
    const state = await client.access({ timeoutMs });
    const changes = await changesTo(state, after);
    if (options.json !== true) writeChanges(environment, changes);
    const { revision, unchanged } = await client.applyPolicies(Buffer.from(canonicalJson(after)), {
      // What was shown is what is changed.
      ifRevision: asked ?? state.revision,
      force: options.force === true,
      timeoutMs,
    });
    if (options.json === true) writeJson(environment, { revision, unchanged, changes });
    else if (unchanged)
      environment.stdout.write(`the policies are so already (revision ${state.revision})\n`);
    else environment.stdout.write(`the policies count on all servers now (revision ${revision})\n`);
  });
};

const get = async (environment: CommandEnvironment, options: ClientOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withClient(environment, options, async (client) => {
    const state = await client.access({ timeoutMs });
    const document = await documentOf(state);
    if (options.json === true) {
      writeJson(environment, { revision: state.revision, document });
      return;
    }
    const { stringify } = await import('yaml');
    environment.stdout.write(`# revision ${state.revision}\n${stringify(document)}`);
  });
};

// ---- who may do what ----

interface CheckOptions extends PolicySource {
  readonly as: string;
  readonly var?: readonly string[];
}

const variablesOf = (texts: readonly string[]): Readonly<Record<string, string>> =>
  Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=');
      if (at < 1) throw new UsageError(`--var ${JSON.stringify(text)} is no variable: write name=value`);
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );

const reasonOf = ({ allowed, rule }: Decision): string => {
  if (rule === undefined) return 'no policy allows it';
  const pattern = rule.pattern === '' ? '' : ` on ${rule.pattern}`;
  return `policies.${rule.policy}[${rule.index}] ${allowed ? 'allows' : 'denies'} it${pattern}`;
};

const check = async (
  environment: CommandEnvironment,
  verb: string,
  on: string | undefined,
  options: CheckOptions,
): Promise<void> => {
  const variables = variablesOf(options.var ?? []);
  const policies = await policiesFor(environment, options);
  const { checkExpectations, PolicyError } = await import('../scopes/index.ts');
  let results;
  try {
    const expectation = { as: options.as, variables, verb, expect: 'allow' as const };
    results = checkExpectations(policies, [on === undefined ? expectation : { ...expectation, on }]);
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    throw new UsageError(error.problems.map(({ problem }) => problem).join('; '));
  }
  const decision = results[0]?.decision ?? { allowed: false };
  if (options.json === true) {
    writeJson(environment, { ...decision });
    return;
  }
  const what = on === undefined ? verb : `${verb} ${on}`;
  environment.stdout.write(
    `${options.as} ${decision.allowed ? 'may' : 'may not'} ${what}: ${reasonOf(decision)}\n`,
  );
};

const test = async (environment: CommandEnvironment, file: string, options: PolicySource): Promise<void> => {
  const { readExpectations } = await import('./expectations-file.ts');
  const expectations = readExpectations(file);
  const policies = await policiesFor(environment, options);
  const { checkExpectations, PolicyError } = await import('../scopes/index.ts');
  let results;
  try {
    results = checkExpectations(policies, expectations);
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    throw await failure('CONFIGURATION_INVALID', `${file}: ${error.message}`);
  }
  const unmet = results.filter(({ met }) => !met);
  if (options.json === true) writeJson(environment, { results });
  else {
    for (const { expectation, decision } of unmet) {
      const { as, verb, on = '', expect } = expectation;
      const line = `${as} ${verb} ${on}`.trimEnd();
      environment.stdout.write(`${line}: expected ${expect}, but ${reasonOf(decision)}\n`);
    }
    environment.stdout.write(`${results.length - unmet.length} of ${results.length} expectations are met\n`);
  }
  if (unmet.length > 0) throw new Error(`${unmet.length} of ${results.length} expectations are not met`);
};

// ---- revocations ----

interface RevocationOptions extends ClientOptions {
  readonly serial?: string;
  readonly token?: string;
  readonly issuedBefore?: string;
}

interface RevokeOptions extends RevocationOptions {
  readonly until?: string;
}

/** With its time zone: JavaScript takes far more, '5' among it, and takes what names no zone for local time. */
const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;

const instantOf = (name: string, text: string): number => {
  const instant = instantPattern.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isSafeInteger(instant) && instant > 0) return instant;
  throw new UsageError(`${name} ${JSON.stringify(text)} is no instant: write it as in 2026-11-22T18:00:00Z`);
};

/** Certificates and tokens say when they were issued in whole seconds: 'now' leaves those of this second alone. */
const secondOf = (ms: number): number => Math.floor(ms / 1000) * 1000;

const issuedBeforeOf = (text: string, nowMs: number): number =>
  text === 'now' ? secondOf(nowMs) : instantOf('--issued-before', text);

const revocationOf = async (who: string, options: RevocationOptions, nowMs: number): Promise<Revocation> => {
  const { parsePrincipal, parseSerial } = await import('../scopes/index.ts');
  const { serial, token, issuedBefore } = options;
  if ([serial, token, issuedBefore].filter((option) => option !== undefined).length > 1)
    throw new UsageError('give one of --serial, --token and --issued-before');
  const principal: Principal | undefined = parsePrincipal(who);
  if (issuedBefore !== undefined) {
    const atMs = issuedBeforeOf(issuedBefore, nowMs);
    if (principal === undefined) return { kind: 'issued_before', realm: who, atMs };
    return { kind: 'issued_before', ...principal, atMs };
  }
  if (serial === undefined && token === undefined) {
    if (principal !== undefined) return { kind: 'principal', ...principal };
    throw new UsageError(
      `${who} is no principal: write realm:name, or give --serial, --token or --issued-before`,
    );
  }
  if (principal !== undefined)
    throw new UsageError(`${who} is a principal: with --serial and --token give the realm alone`);
  if (token !== undefined) return { kind: 'token', realm: who, tokenId: token };
  const parsed = parseSerial(serial ?? '');
  if (parsed === undefined)
    throw new UsageError(`--serial ${JSON.stringify(serial)} is no serial number: write it in hexadecimal`);
  return { kind: 'certificate', realm: who, serial: parsed };
};

const textOf = (revocation: Revocation): string => {
  const { realm } = revocation;
  switch (revocation.kind) {
    case 'certificate':
      return `certificate ${revocation.serial} of ${realm}`;
    case 'principal':
      return `${realm}:${revocation.name}`;
    case 'token':
      return `token ${revocation.tokenId} of ${realm}`;
    case 'issued_before': {
      const whose = revocation.name === undefined ? realm : `${realm}:${revocation.name}`;
      return `all of ${whose} issued before ${new Date(revocation.atMs).toISOString()}`;
    }
    default:
      return revocation satisfies never;
  }
};

const change = async (
  environment: CommandEnvironment,
  revocation: Revocation,
  options: ClientOptions,
  ask: (client: CommandClient, timeoutMs: number) => Promise<{ revision: number; unchanged: boolean }>,
  said: string,
): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withClient(environment, options, async (client) => {
    const { revision, unchanged } = await ask(client, timeoutMs);
    if (options.json === true) writeJson(environment, { revocation, revision, unchanged });
    else
      environment.stdout.write(
        `${visible(textOf(revocation))} ${unchanged ? 'was already so' : `${said} (revision ${revision})`}\n`,
      );
  });
};

/** Whoever revokes by an instant mostly wants to issue anew at once. */
const warnOfComing = (environment: CommandEnvironment, revocation: Revocation): void => {
  if (revocation.kind !== 'issued_before' || revocation.atMs <= secondOf(environment.now())) return;
  const instant = new Date(revocation.atMs).toISOString();
  environment.stderr.write(
    `futurestore: ${instant} is to come: what is issued before it is revoked from the beginning, as what futurestore cert makes now\n`,
  );
};

const revoke = async (
  environment: CommandEnvironment,
  who: string,
  options: RevokeOptions,
): Promise<void> => {
  const revocation = await revocationOf(who, options, environment.now());
  warnOfComing(environment, revocation);
  const until = options.until === undefined ? {} : { untilMs: instantOf('--until', options.until) };
  await change(
    environment,
    revocation,
    options,
    (client, timeoutMs) => client.revoke(revocation, { ...until, timeoutMs }),
    'is revoked',
  );
};

const restore = async (
  environment: CommandEnvironment,
  who: string,
  options: RevocationOptions,
): Promise<void> => {
  const revocation = await revocationOf(who, options, environment.now());
  await change(
    environment,
    revocation,
    options,
    (client, timeoutMs) => client.restore(revocation, { timeoutMs }),
    'is no longer revoked',
  );
};

const revocations = async (environment: CommandEnvironment, options: ClientOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withClient(environment, options, async (client) => {
    const { revocations: records } = await client.access({ timeoutMs });
    if (options.json === true) {
      writeJson(environment, { revocations: records });
      return;
    }
    const rows = records.map(({ revocation, revision, untilMs }) => [
      visible(textOf(revocation)),
      String(revision),
      untilMs === undefined ? '-' : new Date(untilMs).toISOString(),
    ]);
    new Table(environment.stdout, ['REVOKED', 'REVISION', 'UNTIL']).write(rows);
  });
};

const collect = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  value,
];

const withCredential = (command: Command): Command =>
  command
    .argument('<who>', 'realm:name, or with an option the realm alone')
    .option('--serial <hex>', 'the certificate with this serial number')
    .option('--token <id>', 'the token with this id (jti)')
    .option(
      '--issued-before <instant>',
      "all that was issued before (or before 'now'), to the principal or the whole realm",
    );

const backdatingHelp = `
A certificate was issued when its validity begins (notBefore). Those of futurestore cert say the truth. Of an authority that
backdates (Puppet's: by a day) give --issued-before an instant that is so much earlier, or revoke with --serial: else what
it issues next is revoked, too.`;

const withPolicy = (command: Command): Command =>
  command.option('--policy <file>', "a policy file instead of the cluster's policies");

export const addAclCommands = (program: Command, environment: CommandEnvironment): void => {
  const acl = program.command('acl').description('see and change who may do what');
  clientCommand(acl, 'apply')
    .description('replace the policies of the whole cluster')
    .argument('<file>', 'the policy file')
    .option('--if-revision <n>', 'only if the policies are of this revision (default: as they are seen now)')
    .option('--force', 'also where you could not change policies any more then')
    .action((file: string, options: ApplyOptions) => apply(environment, file, options));
  clientCommand(acl, 'get')
    .description('print the policies of the cluster')
    .action((options: ClientOptions) => get(environment, options));
  withPolicy(clientCommand(acl, 'check'))
    .description('say whether somebody may do something, and which rule decides')
    .requiredOption('--as <principal>', 'who: realm:name')
    .option('--var <name=value>', 'the value of a variable that is not the name (more than once)', collect)
    .argument('<verb>', 'get, await, list, …')
    .argument('[key]', 'the key or pattern, if the verb is about keys')
    .action((verb: string, key: string | undefined, options: CheckOptions) =>
      check(environment, verb, key, options),
    );
  withPolicy(clientCommand(acl, 'test'))
    .description('check a file of expectations')
    .argument('<file>', 'a list of: as, verb, on, expect (allow or deny)')
    .action((file: string, options: PolicySource) => test(environment, file, options));
  clientCommand(acl, 'diff')
    .description('print what applying a policy file would change')
    .argument('<file>', 'the policy file')
    .action((file: string, options: ClientOptions) => diff(environment, file, options));
  withCredential(clientCommand(acl, 'revoke'))
    .description('close the connections of a credential everywhere, and refuse new ones')
    .option('--until <instant>', 'forget the revocation then, because the credential has expired')
    .addHelpText('after', backdatingHelp)
    .action((who: string, options: RevokeOptions) => revoke(environment, who, options));
  clientCommand(acl, 'revocations')
    .description('print what is revoked')
    .action((options: ClientOptions) => revocations(environment, options));
  withCredential(clientCommand(acl, 'restore'))
    .description('take a revocation back')
    .action((who: string, options: RevocationOptions) => restore(environment, who, options));
};

/** get, await, list, watch, status. */
import type { Command } from 'commander';
import type { ClusterStatus, Future } from '../protocol/index.ts';
import type { ClientOptions } from './command-options.ts';
import {
  clientCommand,
  defaultTimeout,
  failure,
  optionalDuration,
  timeoutOf,
  wholeNumber,
  withVerbs,
  writeJson,
} from './command-options.ts';
import type { VerbClient, CommandEnvironment, SubscriptionEvent } from './environment.ts';
import { rejectionText } from './exit-codes.ts';
import {
  futureAsJson,
  futureHeadings,
  futureRow,
  Table,
  valueAsCell,
  visible,
  writeStatus,
} from './output.ts';

/** The bare value, for `$(…)`; on a terminal with the newline that the prompt needs. */
const writeBareValue = (environment: CommandEnvironment, future: Future): void => {
  environment.stdout.write(future.value ?? new Uint8Array());
  if (environment.stdout.isTTY === true) environment.stdout.write('\n');
};

const refuseWithoutValue = async (key: string, future: Future | undefined): Promise<void> => {
  if (future === undefined)
    throw await failure('NOT_FOUND', `there is no key ${key}: wait for it with futurestore await`);
  switch (future.state) {
    case 'resolved':
      return;
    case 'pending':
      throw await failure('NO_VALUE', `${key} is pending: wait for its value with futurestore await`);
    case 'expired':
      throw await failure(
        'NO_VALUE',
        `the value of ${key} has expired: wait for a new one with futurestore await`,
      );
    case 'rejected':
      throw await failure(
        'FUTURE_REJECTED',
        future.rejection === undefined ? `${key} was rejected` : rejectionText(key, future.rejection),
      );
    default:
      return future.state satisfies never;
  }
};

const get = async (environment: CommandEnvironment, key: string, options: ClientOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withVerbs(environment, options, async (client) => {
    const future = await client.get(key, { timeoutMs });
    if (options.json === true && future !== undefined) writeJson(environment, futureAsJson(future, true));
    await refuseWithoutValue(key, future);
    if (options.json !== true && future !== undefined) writeBareValue(environment, future);
  });
};

interface AwaitOptions extends ClientOptions {
  readonly any?: true;
}

/** What `get --json` would tell of it, as far as the error knows. By shape: its class would load the client. */
const writeRejection = (environment: CommandEnvironment, error: unknown): void => {
  if (!(error instanceof Error) || !('rejection' in error) || !('key' in error) || !('generation' in error))
    return;
  const { key, generation, rejection } = error;
  writeJson(environment, { key, state: 'rejected', generation, rejection });
};

const awaitKeys = async (
  environment: CommandEnvironment,
  keys: string[],
  options: AwaitOptions,
): Promise<void> => {
  const limit = await optionalDuration('timeoutMs', '--timeout', options.timeout);
  await withVerbs(environment, options, async (client) => {
    const anyOf = options.any === true ? keys.map((key) => [key]) : [[...new Set(keys)]];
    const { futures } = await client.await({ anyOf }, limit).catch((error: unknown) => {
      if (options.json === true) writeRejection(environment, error);
      throw error;
    });
    const [first] = futures;
    if (keys.length === 1 && first !== undefined) {
      if (options.json === true) writeJson(environment, futureAsJson(first, true));
      else writeBareValue(environment, first);
      return;
    }
    if (options.json === true) {
      writeJson(
        environment,
        futures.map((future) => futureAsJson(future, true)),
      );
      return;
    }
    for (const future of futures) {
      environment.stdout.write(`${future.key}\t`);
      environment.stdout.write(future.value ?? new Uint8Array());
      environment.stdout.write('\n');
    }
  });
};

interface ListOptions extends ClientOptions {
  readonly values?: true;
  readonly limit?: string;
}

/** Futures a page: the protocol's greatest. */
const pageFuturesMax = 1000;

/** Page by page, so that a listing of any length takes the memory of one page. */
async function* pages(
  environment: CommandEnvironment,
  client: VerbClient,
  pattern: string,
  request: { readonly values: boolean; readonly limit: number; readonly timeoutMs: number },
): AsyncGenerator<readonly Future[]> {
  const deadlineMs = environment.now() + request.timeoutMs;
  let left = request.limit;
  let after = '';
  while (left > 0) {
    const page = await client.list(pattern, {
      after,
      limit: Math.min(left, pageFuturesMax),
      values: request.values,
      timeoutMs: Math.max(1, deadlineMs - environment.now()),
    });
    yield page.futures;
    left -= page.futures.length;
    if (page.next === undefined) return;
    after = page.next;
  }
}

const list = async (
  environment: CommandEnvironment,
  pattern: string,
  options: ListOptions,
): Promise<void> => {
  const limit =
    options.limit === undefined ? Number.MAX_SAFE_INTEGER : wholeNumber('--limit', options.limit, 1);
  const request = { values: options.values === true, limit, timeoutMs: await timeoutOf(options) };
  await withVerbs(environment, options, async (client) => {
    const found = pages(environment, client, pattern, request);
    await (options.json === true
      ? writeListAsJson(environment, found)
      : writeListAsTable(environment, found, request.values));
  });
};

/** One array, a future a line: read whole by a JSON parser, or line by line by a person. */
const writeListAsJson = async (
  environment: CommandEnvironment,
  found: AsyncIterable<readonly Future[]>,
): Promise<void> => {
  let separator = '[\n';
  for await (const futures of found) {
    for (const future of futures) {
      environment.stdout.write(separator + JSON.stringify(futureAsJson(future, false)));
      separator = ',\n';
    }
  }
  environment.stdout.write(separator === '[\n' ? '[]\n' : '\n]\n');
};

const writeListAsTable = async (
  environment: CommandEnvironment,
  found: AsyncIterable<readonly Future[]>,
  values: boolean,
): Promise<void> => {
  const table = new Table(environment.stdout, futureHeadings(values));
  for await (const futures of found) {
    const nowMs = environment.now();
    table.write(futures.map((future) => futureRow(future, nowMs, values)));
  }
};

interface WatchOptions extends ClientOptions {
  readonly fromNow?: true;
}

const watchedAsJson = (event: SubscriptionEvent): Record<string, unknown> => {
  switch (event.kind) {
    case 'future':
      return { kind: 'future', ...futureAsJson(event.future, false), revision: event.revision };
    case 'deleted':
      return { kind: 'deleted', key: event.key, revision: event.revision };
    case 'reset':
    case 'caught_up':
      return { kind: event.kind };
    default:
      return event satisfies never;
  }
};

/** undefined: nothing a person needs to see. */
const watchedAsLine = (event: SubscriptionEvent): string | undefined => {
  switch (event.kind) {
    case 'future': {
      const { future } = event;
      const detail =
        future.rejection === undefined
          ? valueAsCell(future)
          : visible(`${future.rejection.code}: ${future.rejection.message}`);
      return [event.revision, event.key, future.state, ...(detail === '' ? [] : [detail])].join('\t');
    }
    case 'deleted':
      return [event.revision, event.key, 'deleted'].join('\t');
    case 'reset':
      return '-\t-\treset: changes were missed, the present state of all keys follows';
    case 'caught_up':
      return undefined;
    default:
      return event satisfies never;
  }
};

const writeWatched = (environment: CommandEnvironment, event: SubscriptionEvent, json: boolean): void => {
  const line = json ? JSON.stringify(watchedAsJson(event)) : watchedAsLine(event);
  if (line !== undefined) environment.stdout.write(`${line}\n`);
};

/** The beginning took too long: if no server could be reached, that is why. */
const refuseToWait = async (client: VerbClient, timeout: string): Promise<Error> =>
  client.state.lastError ??
  (await failure(
    'TIMED_OUT',
    `nothing was heard within ${timeout}: see with futurestore status whether the cluster is well`,
  ));

const watch = async (
  environment: CommandEnvironment,
  patterns: string[],
  options: WatchOptions,
): Promise<void> => {
  const startTimeoutMs = await timeoutOf(options);
  const interruption = environment.interruption();
  await withVerbs(environment, options, async (client) => {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), startTimeoutMs);
    const signal = AbortSignal.any([interruption, late.signal]);
    try {
      const events = client.subscribe(patterns, {
        from: options.fromNow === true ? 'new' : 'present',
        signal,
      });
      for await (const event of events) {
        clearTimeout(timer);
        writeWatched(environment, event, options.json === true);
      }
    } catch (error) {
      // How a watch is meant to end.
      if (interruption.aborted) return;
      throw late.signal.aborted ? await refuseToWait(client, options.timeout ?? defaultTimeout) : error;
    } finally {
      clearTimeout(timer);
    }
  });
};

/** The same members in each line, whatever is known of it. */
const statusAsJson = ({ members, ...rest }: ClusterStatus): Record<string, unknown> => ({
  ...rest,
  members: members.map((member) => ({ ...member, heardMsAgo: member.heardMsAgo ?? null })),
});

const status = async (environment: CommandEnvironment, options: ClientOptions): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withVerbs(environment, options, async (client) => {
    const answer = await client.status({ timeoutMs });
    if (options.json === true) writeJson(environment, statusAsJson(answer));
    else writeStatus(environment.stdout, answer);
  });
};

const patternHelp = 'a key, with * for exactly one segment or a last ** for one or more';

export const addReadCommands = (program: Command, environment: CommandEnvironment): void => {
  clientCommand(program, 'get')
    .description('print the value of a key, as it is now')
    .argument('<key>')
    .action((key: string, options: ClientOptions) => get(environment, key, options));
  clientCommand(program, 'await', 'endless')
    .description('wait until the keys have values, and print them')
    .argument('<key...>')
    .option('--any', 'one of the keys is enough')
    .addHelpText('after', '\nOne key: its bare value is printed. Several: a line "KEY<tab>value" for each.')
    .action((keys: string[], options: AwaitOptions) => awaitKeys(environment, keys, options));
  clientCommand(program, 'list')
    .description('print the keys that match')
    .argument('<pattern>', patternHelp)
    .option('--values', 'with their values, except sensitive ones')
    .option('--limit <n>', 'at most so many (default: all)')
    .action((pattern: string, options: ListOptions) => list(environment, pattern, options));
  clientCommand(program, 'watch', 'start')
    .description('print the keys that match and then every change of them, until interrupted')
    .argument('<pattern...>', patternHelp)
    .option('--from-now', 'only changes, not the present state')
    .addHelpText('after', '\nA line is "revision<tab>key<tab>state<tab>value"; with --json an object.')
    .action((patterns: string[], options: WatchOptions) => watch(environment, patterns, options));
  clientCommand(program, 'status')
    .description('print the members of the cluster: who leads, how far each is')
    .action((options: ClientOptions) => status(environment, options));
};

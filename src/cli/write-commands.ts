/** declare, resolve, reject, delete, touch. */
import type { Command } from 'commander';
import type { Operation, OperationResult, Preconditions } from '../protocol/index.ts';
import type { ClientOptions } from './command-options.ts';
import {
  clientCommand,
  durationOption,
  failure,
  optionalDuration,
  timeoutOf,
  wholeNumber,
  withVerbs,
  writeJson,
} from './command-options.ts';
import type { CommandEnvironment } from './environment.ts';
import { asText, writtenAsJson } from './output.ts';

interface WriteOptions extends ClientOptions {
  readonly ifRevision?: string;
}

const preconditionsOf = (options: WriteOptions): Preconditions =>
  options.ifRevision === undefined ? {} : { ifRevision: wholeNumber('--if-revision', options.ifRevision, 1) };

const written = (operation: Operation, result: OperationResult): string => {
  if (operation.kind === 'delete') {
    return result.unchanged
      ? `${operation.key} was not there`
      : `${operation.key} is deleted (revision ${result.revision})`;
  }
  const so = result.unchanged ? `was already ${result.state}` : `is ${result.state}`;
  return `${operation.key} ${so} (generation ${result.generation}, revision ${result.revision})`;
};

const write = async (
  environment: CommandEnvironment,
  options: ClientOptions,
  operation: Operation,
): Promise<void> => {
  const timeoutMs = await timeoutOf(options);
  await withVerbs(environment, options, async (client) => {
    const { results } = await client.batch([operation], { timeoutMs });
    const [result] = results;
    if (result === undefined)
      throw new Error('the server answered a write without its result: please report this');
    if (options.json === true) writeJson(environment, writtenAsJson(operation.key, result));
    else environment.stdout.write(`${written(operation, result)}\n`);
  });
};

/** The argument, or with '-' all of standard input, byte for byte. */
const readValue = async (environment: CommandEnvironment, argument: string): Promise<Uint8Array> => {
  if (argument !== '-') return Buffer.from(argument);
  const { limits } = await import('../protocol/index.ts');
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of environment.stdin) {
    chunks.push(chunk);
    length += chunk.byteLength;
    if (length > limits.valueBytesMax) {
      throw await failure(
        'VALUE_TOO_LARGE',
        `standard input has more than ${limits.valueBytesMax} bytes, the most a value may have`,
      );
    }
  }
  return Buffer.concat(chunks);
};

interface DeclareOptions extends WriteOptions {
  readonly deadline?: string;
  readonly renew?: true;
}

const declare = async (
  environment: CommandEnvironment,
  key: string,
  options: DeclareOptions,
): Promise<void> =>
  write(environment, options, {
    kind: 'declare',
    key,
    preconditions: preconditionsOf(options),
    renew: options.renew === true,
    ...(await optionalDuration('deadlineMs', '--deadline', options.deadline)),
    // The command's session ends with the command: a future tied to it would be lost at once.
    tied: false,
  });

interface SettleOptions extends WriteOptions {
  readonly ttl?: string;
  readonly supersede?: true;
}

interface ResolveOptions extends SettleOptions {
  readonly sensitive?: true;
  readonly contentType?: string;
}

const resolve = async (
  environment: CommandEnvironment,
  key: string,
  argument: string,
  options: ResolveOptions,
): Promise<void> => {
  const ttl = await optionalDuration('ttlMs', '--ttl', options.ttl);
  const preconditions = preconditionsOf(options);
  const value = await readValue(environment, argument);
  const { defaultContentType } = await import('../protocol/index.ts');
  const contentType = asText(value) === undefined ? 'application/octet-stream' : defaultContentType;
  await write(environment, options, {
    kind: 'resolve',
    key,
    preconditions,
    value,
    contentType: options.contentType ?? contentType,
    sensitive: options.sensitive === true,
    ...ttl,
    supersede: options.supersede === true,
  });
};

interface RejectOptions extends SettleOptions {
  readonly message: string;
  readonly code?: string;
}

const reject = async (
  environment: CommandEnvironment,
  key: string,
  options: RejectOptions,
): Promise<void> => {
  const { rejectionCodes } = await import('../protocol/index.ts');
  await write(environment, options, {
    kind: 'reject',
    key,
    preconditions: preconditionsOf(options),
    rejection: { code: options.code ?? rejectionCodes.unspecified, message: options.message },
    ...(await optionalDuration('ttlMs', '--ttl', options.ttl)),
    supersede: options.supersede === true,
  });
};

const writeCommand = (program: Command, name: string): Command =>
  clientCommand(program, name).option(
    '--if-revision <n>',
    'only if the last change of the key has this revision',
  );

const settleCommand = (program: Command, name: string): Command =>
  writeCommand(program, name)
    .option('--ttl <duration>', 'how long it stays fresh (default: always)')
    .option('--supersede', 'also where a fresh value is there');

export const addWriteCommands = (program: Command, environment: CommandEnvironment): void => {
  writeCommand(program, 'declare')
    .description('announce that a key will get a value')
    .argument('<key>')
    .option('--deadline <duration>', 'reject it if it has no value by then')
    .option('--renew', 'open the next generation where the present one is settled')
    .action((key: string, options: DeclareOptions) => declare(environment, key, options));
  settleCommand(program, 'resolve')
    .description('give a key its value')
    .argument('<key>')
    .argument('<value>', 'the value, or - to read it from standard input, byte for byte')
    .option('--sensitive', 'show it in no log, listing or error text')
    .option('--content-type <type>', 'what the value is (default: text/plain; charset=utf-8)')
    .action((key: string, value: string, options: ResolveOptions) =>
      resolve(environment, key, value, options),
    );
  settleCommand(program, 'reject')
    .description('say that a key will get no value, and why')
    .argument('<key>')
    .requiredOption('--message <text>', 'why')
    .option('--code <code>', 'for programs: capital letters, digits and _ (default: REJECTED)')
    .action((key: string, options: RejectOptions) => reject(environment, key, options));
  writeCommand(program, 'delete')
    .description('delete a key')
    .argument('<key>')
    .action((key: string, options: WriteOptions) =>
      write(environment, options, { kind: 'delete', key, preconditions: preconditionsOf(options) }),
    );
  writeCommand(program, 'touch')
    .description('set anew how long a settled key stays fresh, from now')
    .argument('<key>')
    .requiredOption('--ttl <duration>', 'how long, such as 30s or 24h')
    .action(async (key: string, options: WriteOptions & { readonly ttl: string }) =>
      write(environment, options, {
        kind: 'touch',
        key,
        preconditions: preconditionsOf(options),
        ttlMs: await durationOption('--ttl', options.ttl),
      }),
    );
};

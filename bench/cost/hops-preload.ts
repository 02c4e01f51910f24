/**
 * Loaded into a server before its own code (`node --import`): notes when a write passes the doors of its rooms, and writes
 * that to a file at each SIGUSR2. The build knows nothing of it: methods of its classes are wrapped.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { nowUs, type HopsFile, type Mark } from './hop-marks.ts';

type Method = (this: unknown, ...args: unknown[]) => unknown;

const { HOPS_BUILD: build = '', HOPS_DIRECTORY: directory = '' } = process.env;
let marks: (readonly [Mark, number])[] = [];
let files = 0;

const note = (mark: Mark | undefined): void => {
  if (mark !== undefined) marks.push([mark, nowUs()]);
};

const prototypeOf = async (file: string, name: string): Promise<Record<string, Method>> => {
  const module = (await import(pathToFileURL(join(build, 'dist', file)).href)) as Record<
    string,
    { readonly prototype: Record<string, Method> } | undefined
  >;
  const found = module[name];
  if (found === undefined) throw new Error(`${file} of ${build} has no ${name}`);
  return found.prototype;
};

const wrap = async (
  file: string,
  name: string,
  method: string,
  markOf: (argument: unknown) => Mark | undefined,
  afterwards?: Mark,
): Promise<void> => {
  const prototype = await prototypeOf(file, name);
  const original = prototype[method];
  if (original === undefined) throw new Error(`${name} of ${build} has no ${method}`);
  prototype[method] = function wrapped(...args) {
    const mark = markOf(args[0]);
    note(mark);
    const result = original.apply(this, args);
    if (mark !== undefined && afterwards !== undefined && result instanceof Promise)
      result.then(
        () => note(afterwards),
        () => undefined,
      );
    return result;
  };
};

interface RaftMessage {
  readonly kind: string;
  readonly entries?: readonly unknown[];
}

const received = ({ kind, entries = [] }: RaftMessage): Mark | undefined => {
  if (kind === 'append_response') return 'acknowledgement received';
  if (kind !== 'append_request') return undefined;
  return entries.length > 0 ? 'append received' : 'commit received';
};

const sent = (batch: {
  readonly raft: readonly RaftMessage[];
  readonly forward: readonly unknown[];
}): Mark | undefined => {
  if (batch.forward.length > 0) return 'forwarded';
  if (batch.raft.some(({ kind }) => kind === 'append_response')) return 'acknowledged';
  const append = batch.raft.find(({ kind }) => kind === 'append_request');
  if (append === undefined) return undefined;
  return (append.entries ?? []).length > 0 ? 'append sent' : 'commit sent';
};

const stepped = (input: { readonly kind: string; readonly message?: RaftMessage }): Mark | undefined => {
  if (input.message !== undefined) return received(input.message);
  if (input.kind === 'propose') return 'proposed';
  return input.kind === 'applied' ? 'applied' : undefined;
};

await wrap('gateway/requests.js', 'Requests', 'handle', () => 'received by the gateway');
await wrap('gateway/outbox.js', 'Outbox', 'sendNow', () => 'answered');
await wrap('raft/raft.js', 'Raft', 'step', (input) => stepped(input as Parameters<typeof stepped>[0]));
await wrap('peers/outgoing-link.js', 'OutgoingLink', 'send', (batch) =>
  sent(batch as Parameters<typeof sent>[0]),
);
await wrap(
  'storage/key-value-storage.js',
  'KeyValueStorage',
  'write',
  (batch) => ((batch as { readonly sync: boolean }).sync ? 'disk begun' : undefined),
  'disk done',
);

process.on('SIGUSR2', () => {
  const file: HopsFile = { marks };
  marks = [];
  files += 1;
  const path = join(directory, `${process.pid}-${files}.json`);
  writeFileSync(`${path}.part`, JSON.stringify(file));
  renameSync(`${path}.part`, path);
});

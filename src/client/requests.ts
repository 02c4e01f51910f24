/** A request from its making to its answer: what it asks, how long it may take, whether it has left this process. */
import { FuturestoreError, requestProblem } from '../protocol/index.ts';
import type { AnswerBody, ClusterChange, Failure, Operation, RequestBody } from '../protocol/index.ts';
import { errorOf } from './errors.ts';
import type { Timed } from './timers.ts';

export type Content =
  | Extract<RequestBody, { kind: 'get' | 'list' | 'await' | 'clock' | 'status' }>
  | ClusterContent
  /** Its sequence is given when it is first sent. */
  | { readonly kind: 'write'; readonly operations: readonly Operation[] };

/** About the cluster itself. A change that is sent again over another connection comes to the same. */
type ClusterContent =
  ClusterChange | Extract<RequestBody, { kind: 'member_list' | 'snapshot_read' | 'acl_get' }>;

export interface RequestOptions {
  /** How long the answer may take, in milliseconds, over all tries; absent: the client's default, or for ever. */
  readonly timeoutMs?: number;
  /** Ends the request with CANCELLED. A write that was sent may happen all the same. */
  readonly signal?: AbortSignal;
}

/** Under which name a write is known to the cluster: see `ClientOptions.session`. */
export interface WriteName {
  /** The session's id, as `opened` told it. */
  readonly session: string;
  /** Its number in the session: 1 or more, greater than all before it. */
  readonly sequence: number;
}

export interface WriteOptions extends RequestOptions {
  /**
   * The write goes under this name or not at all: SESSION_EXPIRED if the session is another by now, and it was not sent
   * by this client. Sent again under the same name, also by a later process, it happens once.
   */
  readonly name?: WriteName;
}

export type Phase =
  /** Waits for a connection, a session, or its turn. */
  | 'queued'
  /** Sent over the present connection, unanswered. */
  | 'in_flight'
  /** The server could not serve it; sent again at `retryAtMs`. */
  | 'backing_off'
  | 'done';

export interface PendingOwner {
  due(pending: Pending, nowMs: number): void;
  aborted(pending: Pending): void;
}

/** A request whatever its result: what the engine handles. */
export abstract class Pending implements Timed {
  readonly content: Content;
  /** Upper bound of its encoding. */
  readonly bytes: number;
  readonly timeoutMs: number | undefined;
  /** Infinity: none. */
  readonly deadlineAtMs: number;
  /** Of a write that may go under this name only. */
  readonly name: WriteName | undefined;
  readonly #owner: PendingOwner;
  readonly #signal: AbortSignal | undefined;
  phase: Phase = 'queued';
  /** On the present connection, while in flight. */
  id = 0;
  /** Of a write in the present session; 0: not sent in it. */
  sequence = 0;
  /** Has left this process at least once. */
  sent = false;
  /** It was sent, and a connection ended or the server gave up before its answer: it may have happened. */
  answerLost = false;
  retries = 0;
  retryAtMs = 0;
  /** The last one of those that let it be tried again. */
  lastFailure: Failure | undefined;
  dueAtMs = 0;
  heapIndex = -1;

  constructor(content: Content, bytes: number, options: WriteOptions, nowMs: number, owner: PendingOwner) {
    this.content = content;
    this.bytes = bytes;
    this.timeoutMs = options.timeoutMs;
    this.name = options.name;
    this.deadlineAtMs = options.timeoutMs === undefined ? Infinity : nowMs + options.timeoutMs;
    this.#owner = owner;
    this.#signal = options.signal;
    this.#signal?.addEventListener('abort', this);
  }

  /** Why it was aborted. */
  get abortReason(): unknown {
    return this.#signal?.reason;
  }

  /** What the abort signal calls. */
  handleEvent(): void {
    this.#owner.aborted(this);
  }

  due(nowMs: number): void {
    this.#owner.due(this, nowMs);
  }

  /** No more is to come: called once, before its promise settles. */
  finish(): void {
    this.phase = 'done';
    this.#signal?.removeEventListener('abort', this);
  }

  abstract succeed(body: AnswerBody): void;
  abstract fail(error: FuturestoreError): void;
}

/** Until the promise is made. */
const ignore = (): void => undefined;

export class PendingRequest<R> extends Pending {
  readonly promise: Promise<R>;
  readonly #convert: (body: AnswerBody) => R;
  #resolve: (result: R) => void = ignore;
  #reject: (error: unknown) => void = ignore;

  constructor(
    content: Content,
    bytes: number,
    options: WriteOptions,
    nowMs: number,
    owner: PendingOwner,
    convert: (body: AnswerBody) => R,
  ) {
    super(content, bytes, options, nowMs, owner);
    this.#convert = convert;
    this.promise = new Promise<R>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  succeed(body: AnswerBody): void {
    try {
      this.#resolve(this.#convert(body));
    } catch (error) {
      this.#reject(error);
    }
  }

  fail(error: FuturestoreError): void {
    this.#reject(error);
  }
}

/** What a request is called in an error text: its verb and key, never a value. */
export function describe(content: Content): string {
  switch (content.kind) {
    case 'get':
      return `get ${content.key}`;
    case 'list':
      return `list ${content.pattern}`;
    case 'await':
      return `await ${some(content.alternatives.flat())}`;
    case 'clock':
      return 'the question for cluster time';
    case 'status':
      return 'status';
    case 'member_list':
      return 'the list of members';
    case 'member_add':
      return `adding the server ${content.name}`;
    case 'member_promote':
      return `promoting server ${content.member}`;
    case 'member_remove':
      return `removing server ${content.member}`;
    case 'transfer_leader':
      return content.member === undefined
        ? 'the hand-over of leadership'
        : `the hand-over of leadership to server ${content.member}`;
    case 'drain_server':
      return content.end
        ? `ending the drain of server ${content.member}`
        : `draining server ${content.member}`;
    case 'rebalance':
      return 'the rebalance';
    case 'snapshot_read':
      return `part ${content.part} of the snapshot`;
    case 'acl_get':
      return 'the policies';
    case 'acl_apply':
      return 'applying the policies';
    case 'acl_revoke':
      return 'the revocation';
    case 'acl_restore':
      return 'taking back the revocation';
    case 'write': {
      const [first] = content.operations;
      if (content.operations.length === 1 && first !== undefined) return `${first.kind} ${first.key}`;
      return `batch of ${some(content.operations.map((operation) => operation.key))}`;
    }
    default:
      return content satisfies never;
  }
}

function some(keys: readonly string[]): string {
  const shown = keys.slice(0, 3).join(', ');
  return keys.length > 3 ? `${shown} and ${String(keys.length - 3)} more` : shown;
}

/** Field numbers, lengths, and the numbers of a request or operation: at most this many bytes. */
const overheadBytes = 96;
const perStringBytes = 8;

export function contentBytes(content: Content): number {
  switch (content.kind) {
    case 'get':
      return overheadBytes + content.key.length;
    case 'list':
      return overheadBytes + content.pattern.length + content.after.length;
    case 'await':
      return (
        overheadBytes +
        stringsBytes(content.alternatives.flat()) +
        content.alternatives.length * perStringBytes
      );
    case 'clock':
    case 'status':
    case 'member_list':
    case 'member_promote':
    case 'member_remove':
    case 'transfer_leader':
    case 'drain_server':
    case 'rebalance':
    case 'snapshot_read':
    case 'acl_get':
      return overheadBytes;
    case 'acl_apply':
      return overheadBytes + content.document.length;
    case 'acl_revoke':
    case 'acl_restore':
      return overheadBytes + JSON.stringify(content.revocation).length;
    case 'member_add':
      return stringsBytes([content.name, content.peersAddress, content.agentsUrl]);
    case 'write':
      return content.operations.reduce((sum, operation) => sum + operationBytes(operation), overheadBytes);
    default:
      return content satisfies never;
  }
}

/** For strings of ASCII. */
export const stringsBytes = (strings: readonly string[]): number =>
  strings.reduce((sum, text) => sum + text.length + perStringBytes, overheadBytes);

function operationBytes(operation: Operation): number {
  const base = overheadBytes + operation.key.length;
  if (operation.kind === 'resolve') return base + operation.value.length + operation.contentType.length;
  // UTF-8 has at most three bytes for one unit of UTF-16.
  if (operation.kind === 'reject')
    return base + operation.rejection.code.length + 3 * operation.rejection.message.length;
  return base;
}

export const unexpectedAnswer = (body: AnswerBody, expected: string): FuturestoreError =>
  new FuturestoreError('PROTOCOL_ERROR', `the server answered ${body.kind} where ${expected} was expected`);

/** Before it is sent, so that the caller hears of it; a frame with one bad request in it would be lost as a whole. */
export function checkRequest(content: Content, { timeoutMs, name }: WriteOptions): void {
  const body: RequestBody =
    content.kind === 'write' ? { ...content, sequence: name?.sequence ?? 1, answeredBelow: 1 } : content;
  const problem = requestProblem(timeoutMs === undefined ? { id: 1, body } : { id: 1, timeoutMs, body });
  if (problem !== undefined) throw errorOf(problem);
}

export const tooLarge = (content: Content, bytes: number, bytesMax: number): FuturestoreError =>
  new FuturestoreError(
    'LIMIT_EXCEEDED',
    `${describe(content)} takes up to ${String(bytes)} bytes, and a frame holds ${String(bytesMax)}: split it`,
  );

/**
 * Whether it is about now alone, and what was sent before may have happened: a write that its session remembers is
 * refused at the door by policies that are newer, and policies that were applied are no more of the revision they
 * replaced.
 */
export const saysNothingOfBefore = ({ kind }: Content, { code }: Failure): boolean => {
  if (kind === 'write') return code === 'PERMISSION_DENIED' || code === 'VALUE_TOO_LARGE';
  return kind === 'acl_apply' && (code === 'PERMISSION_DENIED' || code === 'PRECONDITION_FAILED');
};

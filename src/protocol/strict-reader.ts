/**
 * A protobufjs reader that hides nothing: the library's own rounds numbers above 2^53, cuts 32-bit fields to their
 * low bits, and skips unknown fields. Here a number too large becomes Infinity (which no check of a field lets pass)
 * and the first unknown field is remembered.
 */
import { Reader } from './protobuf.ts';
import type { ReaderType } from './protobuf.ts';

/** What of the library's reader is used here; its other methods return types that these overrides narrow. */
interface BaseReader {
  buf: Uint8Array;
  pos: number;
  len: number;
  discardUnknown: boolean;
  tag(): number;
  size(): number;
  bool(): boolean;
  bytes(): Uint8Array;
  skipType(wireType: number, depth?: number, fieldNumber?: number): unknown;
}

const Base: new (bytes: Uint8Array) => BaseReader = Reader;
const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const varintBytesMax = 10;
const uint32Max = 0xffff_ffff;

/**
 * Messages, texts and byte strings in a client's frame. An empty one takes two bytes on the wire but a hundred in
 * memory, so a hostile frame is stopped half-way; a full frame of the smallest useful operations has fewer.
 */
export const partsPerFrameMax = 2 ** 18;

/** For what servers have made themselves: more parts than any such message has bytes. (Infinity is a number that V8 counts down in a new object each time.) */
export const partsWithoutBound = 2 ** 30 - 1;

export class StrictReader extends Base {
  /** The number of the first field that no message knows, or that has the wrong wire type. */
  unknownField: number | undefined;
  readonly #buffer: Buffer;
  #partsLeft: number;
  /** What `hex` gave last, and where it was. */
  #hex = '';
  #hexFrom = 0;

  constructor(bytes: Uint8Array, partsMax: number) {
    super(bytes);
    this.discardUnknown = true;
    this.#buffer = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#partsLeft = partsMax;
  }

  get partsLeft(): number {
    return this.#partsLeft;
  }

  /** To read again what was read since it was at `pos` with so many parts left. */
  rewind(pos: number, partsLeft: number): void {
    this.pos = pos;
    this.#partsLeft = partsLeft;
  }

  /** The same object under the type that generated code takes. */
  get reader(): ReaderType {
    return this as unknown as ReaderType;
  }

  override size(): number {
    this.#partsLeft -= 1;
    if (this.#partsLeft < 0) throw new RangeError(`it has too many parts for one frame`);
    return super.size();
  }

  override skipType(wireType: number, depth?: number, fieldNumber?: number): unknown {
    this.unknownField ??= fieldNumber;
    return super.skipType(wireType, depth, fieldNumber);
  }

  /** At most 2^53-1, or Infinity. */
  uint64(): number {
    const { buf, len } = this;
    let value = 0;
    let scale = 1;
    for (let count = 0; count < varintBytesMax; count += 1) {
      const byte = this.pos < len ? buf[this.pos] : undefined;
      if (byte === undefined) throw new RangeError('it ends inside a number');
      this.pos += 1;
      // Exact below 2^53; beyond it rounding cannot bring the sum back under.
      value += (byte & 127) * scale;
      if (byte < 128) return value <= Number.MAX_SAFE_INTEGER ? value : Number.POSITIVE_INFINITY;
      scale *= 128;
    }
    throw new RangeError('it has a number of more than ten bytes');
  }

  /** At most 2^32-1, or Infinity. */
  uint32(): number {
    const value = this.uint64();
    return value <= uint32Max ? value : Number.POSITIVE_INFINITY;
  }

  /** Enums are the only such fields. */
  int32(): number {
    return this.uint32();
  }

  /** A byte string as hex digits. Where it is the one before again, as with commands of one session, so is the text. */
  hex(): string {
    const length = this.size();
    const from = this.pos;
    const end = from + length;
    if (end > this.len) throw new RangeError('it ends inside a byte string');
    this.pos = end;
    let same = this.#hex.length === 2 * length;
    for (let at = 0; same && at < length; at += 1)
      same = this.#buffer[from + at] === this.#buffer[this.#hexFrom + at];
    if (!same) {
      this.#hex = this.#buffer.toString('hex', from, end);
      this.#hexFrom = from;
    }
    return this.#hex;
  }

  /** Whether two stretches of what is read have the same bytes. */
  sameBytes(start: number, end: number, otherStart: number, otherEnd: number): boolean {
    return (
      end - start === otherEnd - otherStart &&
      this.#buffer.compare(this.#buffer, otherStart, otherEnd, start, end) === 0
    );
  }

  /** A text that mostly is `usual`, which is given then, and no other one is made (of ASCII: else its bytes are not its characters). */
  textOr(usual: string): string {
    const before = this.pos;
    const partsBefore = this.#partsLeft;
    const length = this.size();
    const start = this.pos;
    if (length === usual.length && start + length <= this.len) {
      let at = 0;
      for (; at < length; at += 1) {
        const byte = this.#buffer[start + at] ?? 0;
        if (byte > 127 || byte !== usual.charCodeAt(at)) break;
      }
      if (at === length) {
        this.pos = start + length;
        return usual;
      }
    }
    this.rewind(before, partsBefore);
    return this.stringVerify();
  }

  stringVerify(): string {
    const length = this.size();
    const start = this.pos;
    const end = start + length;
    if (end > this.len) throw new RangeError('it ends inside a text');
    this.pos = end;
    for (let at = start; at < end; at += 1) {
      if ((this.#buffer[at] ?? 0) > 127) return strictText.decode(this.#buffer.subarray(start, end));
    }
    return this.#buffer.toString('latin1', start, end);
  }
}

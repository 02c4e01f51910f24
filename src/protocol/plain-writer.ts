/**
 * A protobufjs writer that is used again and makes no objects: the library's own makes two of every 64-bit number and
 * grows a new buffer for every message, which together were a fifth of all that a server allocated for a write.
 */
import { BufferWriter } from './protobuf.ts';
import type { WriterType } from './protobuf.ts';

/** What of the library's writer is used here. */
interface BaseWriter extends WriterType {
  buf: Buffer;
  _reserve(count: number): void;
}

const Base = BufferWriter as unknown as new () => BaseWriter;
const uint32Max = 0xffff_ffff;
const varintBytesMax = 10;

/** A writer with a larger buffer is not kept for the next message. */
const keptBufferBytesMax = 256 * 1024;

export class PlainWriter extends Base {
  /** Whole numbers up to 2^53-1 alone: `outgoing` sees to it. */
  override uint64(value: number): this {
    let rest = value;
    if (rest > uint32Max) {
      this._reserve(varintBytesMax);
      const { buf } = this;
      let { pos } = this;
      while (rest > uint32Max) {
        buf[pos] = (rest % 128) | 128;
        pos += 1;
        rest = Math.floor(rest / 128);
      }
      this.pos = pos;
    }
    this.uint32(rest);
    return this;
  }

  /** Bytes that are given as hex digits; fewer than 128 of them. */
  hex(digits: string): this {
    const count = digits.length / 2;
    this._reserve(count + 1);
    this.buf[this.pos] = count;
    this.buf.write(digits, this.pos + 1, count, 'hex');
    this.pos += count + 1;
    return this;
  }
}

let spareWriter: PlainWriter | undefined;

/** The spare one, or another where that is in use; lost if encoding throws half-way. */
function takeWriter(): PlainWriter {
  const writer = spareWriter ?? new PlainWriter();
  spareWriter = undefined;
  return writer;
}

/** What was written, in a buffer of its own. */
function finish(writer: PlainWriter): Uint8Array {
  const bytes = writer.finish();
  if (writer.buf.length <= keptBufferBytesMax) {
    writer.reset();
    spareWriter = writer;
  }
  return bytes;
}

/** The bytes that `write` writes. */
export function encodeWith<T>(write: (writer: PlainWriter, input: T) => void, input: T): Uint8Array {
  const writer = takeWriter();
  write(writer, input);
  return finish(writer);
}

/** Of messages that share a buffer. */
const sharedBufferBytes = 32 * 1024;
/** With less left in it the next message begins another one. */
const roomBytesMin = 1024;
let sharedWriter: PlainWriter | undefined;

/** As `encodeWith`, of what is not kept: a view of a buffer that other messages share, so that nothing is copied. */
export function encodeBriefly<T>(write: (writer: PlainWriter, input: T) => void, input: T): Uint8Array {
  let writer = sharedWriter;
  // Lost if encoding throws half-way.
  sharedWriter = undefined;
  if (writer === undefined || writer.buf.length - writer.pos < roomBytesMin) {
    writer = new PlainWriter();
    writer.buf = Buffer.allocUnsafeSlow(sharedBufferBytes);
  }
  const from = writer.pos;
  write(writer, input);
  sharedWriter = writer.buf.length <= sharedBufferBytes ? writer : undefined;
  return writer.buf.subarray(from, writer.pos);
}

/** As the generated `encode` of a message would with a writer of its own. */
export function encodeMessage<M>(
  type: { encode(message: M, writer?: WriterType): WriterType },
  message: M,
): Uint8Array {
  const writer = takeWriter();
  type.encode(message, writer);
  return finish(writer);
}

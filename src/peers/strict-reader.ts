/**
 * A protobufjs reader that refuses what the library's own lets pass: unknown fields, fields of a wrong wire type, 32-bit
 * numbers of more bits, and more parts than a frame of ours ever has. (It rounds 64-bit numbers beyond 2^53, but never
 * to below it, so the check of each field sees them.)
 */
// Configures protobufjs before it is used here.
import '../protocol/index.ts';
import protobuf from 'protobufjs/minimal.js';

/** An empty message takes 2 bytes on the wire and a hundred in memory. */
const partsMax = 500_000;
const uint32Max = 0xffff_ffff;

interface BaseReader {
  skipType(wireType: number, depth?: number, fieldNumber?: number): unknown;
  size(): number;
  uint64(): unknown;
}
const Base: new (bytes: Uint8Array) => BaseReader = protobuf.Reader;

class StrictReader extends Base {
  #parts = 0;

  override skipType(_wireType: number, _depth?: number, fieldNumber?: number): never {
    throw new RangeError(`it has an unknown field, ${fieldNumber}`);
  }

  override size(): number {
    this.#parts += 1;
    if (this.#parts > partsMax) throw new RangeError(`it has more than ${partsMax} parts`);
    return super.size();
  }

  uint32(): number {
    const value = Number(super.uint64());
    if (value > uint32Max) throw new RangeError(`${value} is no 32-bit number`);
    return value;
  }
}

export const strictReader = (bytes: Uint8Array): protobuf.Reader =>
  new StrictReader(bytes) as unknown as protobuf.Reader;

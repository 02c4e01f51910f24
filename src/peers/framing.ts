/** Frames on a stream: a length in 4 bytes, big endian, and so many bytes. */
import { FuturestoreError } from '../protocol/index.ts';

export const lengthBytes = 4;
/** A hello is a hundred bytes and the runs of a disk; nobody who has not been let in makes us hold more. */
export const helloBytesMax = 64 * 1024;
/** One entry may have 12 MiB, and travels alone. */
export const frameBytesMax = 16 * 1024 * 1024;

/**
 * Puts frames together again from the pieces a stream delivers. Each frame is a buffer of its own: what is kept of it
 * keeps no read buffer alive.
 */
export class FrameAssembler {
  #limit: number;
  #chunk: Buffer | undefined;
  #at = 0;
  readonly #header = Buffer.alloc(lengthBytes);
  #headerBytes = 0;
  #frame: Buffer | undefined;
  #frameBytes = 0;

  /** `limit`: the longest frame accepted, in bytes. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  set limit(limit: number) {
    this.#limit = limit;
  }

  /** Only when `next` has given undefined. */
  push(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** undefined: more is needed. Throws PROTOCOL_ERROR for a frame beyond the limit, before any of it is stored. */
  next(): Buffer | undefined {
    const chunk = this.#chunk;
    if (chunk === undefined) return undefined;
    if (this.#frame === undefined) {
      while (this.#headerBytes < lengthBytes) {
        if (this.#at >= chunk.length) return this.#starve();
        this.#header[this.#headerBytes] = chunk[this.#at] ?? 0;
        this.#headerBytes += 1;
        this.#at += 1;
      }
      const length = this.#header.readUInt32BE(0);
      if (length > this.#limit) {
        throw new FuturestoreError(
          'PROTOCOL_ERROR',
          `A frame of ${length} bytes is beyond the limit of ${this.#limit}.`,
        );
      }
      this.#frame = Buffer.allocUnsafeSlow(length);
      this.#frameBytes = 0;
    }
    const frame = this.#frame;
    const copied = chunk.copy(frame, this.#frameBytes, this.#at);
    this.#frameBytes += copied;
    this.#at += copied;
    if (this.#frameBytes < frame.length) return this.#starve();
    this.#frame = undefined;
    this.#headerBytes = 0;
    return frame;
  }

  #starve(): undefined {
    this.#chunk = undefined;
    return undefined;
  }
}

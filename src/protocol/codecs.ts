import type { FrameCodec } from './frames.ts';
import { jsonCodec } from './json-codec.ts';
import { protobufCodec } from './protobuf-codec.ts';

/** The subprotocols that a server speaks, the one it prefers first. */
export const codecs: readonly FrameCodec[] = [protobufCodec, jsonCodec];

/** The codec of a WebSocket subprotocol; undefined: this version does not speak it. */
export function codecFor(subprotocol: string): FrameCodec | undefined {
  return codecs.find((codec) => codec.subprotocol === subprotocol);
}

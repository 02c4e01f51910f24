/**
 * protobufjs, made to give and take plain numbers for 64-bit fields. Generated code reads this setting when it is
 * loaded, so whatever imports it imports this module first.
 */
import protobuf from 'protobufjs/minimal.js';

// With a Long class present every 64-bit field would be an object although the generated types say number.
Reflect.set(protobuf.util, 'Long', undefined);
protobuf.configure();

export const Reader = protobuf.Reader;
export const Writer = protobuf.Writer;
export const BufferWriter = protobuf.BufferWriter;
export type { Reader as ReaderType, Writer as WriterType } from 'protobufjs/minimal.js';

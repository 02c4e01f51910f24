import { limits as protocolLimits } from '../protocol/index.ts';

/** Every limit of the relay, each with its reason. All are enforced. */
export const relayLimits = {
  /** A machine's settles of some days without servers. */
  queueEntriesMax: 10_000,
  /** In memory and on disk; a value may have 1 MiB. */
  queueBytesMax: 64 * 1024 * 1024,
  /** What became of queued writes, for who asks later: on disk too, about 200 bytes each. */
  outcomesMax: 1_000,
  cacheEntriesMax: 10_000,
  cacheBytesMax: 64 * 1024 * 1024,
  /** Keys that are followed; those that were asked for longest ago make room. */
  followedKeysMax: 8_192,
  /** Of a connection's 1,024 subscriptions; the rest is for watches. */
  followedGroupsMax: 512,
  /** Each may hold 16 MiB of changes that its caller has not taken. */
  watchesMax: 32,
  /** Programs on one machine: an await holds one each. */
  connectionsMax: 512,
  /** A value of the greatest size in base64, with the rest; text that JSON has to escape may need `value_base64`. */
  bodyBytesMax: 2 * protocolLimits.valueBytesMax,
  /** Bodies that are being read, together. */
  bodiesBytesMax: 32 * 1024 * 1024,
  headerBytesMax: 16 * 1024,
} as const;

export type RelayLimits = { readonly [name in keyof typeof relayLimits]: number };

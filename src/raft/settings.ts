/** The options with their defaults, checked. */

import type { RaftOptions } from './types.ts';

export interface Settings {
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  readonly appendBytesMax: number;
  readonly uncommittedBytesMax: number;
  readonly applyBytesMax: number;
  readonly pendingReadsMax: number;
  readonly promotionLagMax: number;
}

const MiB = 1024 * 1024;
/** The window of a peer is allocated whole: 16 bytes for each message. */
const inflightMessagesLimit = 65_536;

const positive = (name: string, value: number, max = Number.MAX_SAFE_INTEGER): number => {
  if (!Number.isSafeInteger(value) || value < 1 || value > max) {
    throw new RangeError(`${name} must be an integer from 1 to ${max}, got ${value}`);
  }
  return value;
};

export const settingsOf = (options: RaftOptions): Settings => {
  const settings: Settings = {
    electionTicks: positive('electionTicks', options.electionTicks ?? 10),
    heartbeatTicks: positive('heartbeatTicks', options.heartbeatTicks ?? 1),
    inflightMessagesMax: positive(
      'inflightMessagesMax',
      options.inflightMessagesMax ?? 256,
      inflightMessagesLimit,
    ),
    inflightBytesMax: positive('inflightBytesMax', options.inflightBytesMax ?? 8 * MiB),
    appendBytesMax: positive('appendBytesMax', options.appendBytesMax ?? MiB),
    uncommittedBytesMax: positive('uncommittedBytesMax', options.uncommittedBytesMax ?? 64 * MiB),
    applyBytesMax: positive('applyBytesMax', options.applyBytesMax ?? 4 * MiB),
    pendingReadsMax: positive('pendingReadsMax', options.pendingReadsMax ?? 10_000),
    promotionLagMax: positive('promotionLagMax', options.promotionLagMax ?? 1000),
  };
  if (settings.electionTicks <= settings.heartbeatTicks) {
    throw new RangeError(
      `electionTicks (${settings.electionTicks}) must be greater than heartbeatTicks (${settings.heartbeatTicks}): ` +
        'every member would campaign between two heartbeats',
    );
  }
  return settings;
};

/** What is noted of a write on its way, in the servers and by who asks. */
import process from 'node:process';

export type Mark =
  | 'received by the gateway'
  | 'forwarded'
  | 'proposed'
  | 'append sent'
  | 'disk begun'
  | 'disk done'
  | 'append received'
  | 'acknowledged'
  | 'acknowledgement received'
  | 'applied'
  | 'commit sent'
  | 'commit received'
  | 'answered';

export interface HopsFile {
  readonly marks: readonly (readonly [Mark, number])[];
}

/** Of one clock for all processes of a machine. Microseconds; a number holds them exactly for centuries. */
export const nowUs = (): number => Number(process.hrtime.bigint() / 100n) / 10;

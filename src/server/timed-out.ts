/** What a request is told whose time is over: whether it may still happen, and what to look at. */
import type { Failure } from '../protocol/index.ts';
import type { GatewayRequest } from './port.ts';

export const timedOut = (request: GatewayRequest): Failure => ({
  code: 'TIMED_OUT',
  message: timedOutText(request),
});

const timedOutText = ({ kind }: GatewayRequest): string => {
  switch (kind) {
    case 'write':
      return 'the write was not confirmed within its timeout and may still happen: send it again with its sequence number, or read the key';
    case 'member_add':
    case 'member_promote':
    case 'member_remove':
    case 'transfer_leader':
    case 'drain_server':
    case 'rebalance':
      return `the ${kind} was not confirmed within its timeout and may still happen: look at the list of members`;
    case 'acl_apply':
    case 'acl_revoke':
    case 'acl_restore':
      return `the ${kind} was not confirmed within its timeout and may still happen: look at what holds with acl_get`;
    default:
      return `the ${kind} was not answered within its timeout`;
  }
};

/** What a client of an earlier level is told: without the fields that it would hang up on. */
import type { AnswerBody } from '../protocol/index.ts';

/** From which on a client knows `draining` of members, and endpoints in goaway. */
export const drainingSince = 2;

/** From which on a client knows that it may come back to the server that asks it to go. */
export const hereSince = 3;

/** The answer for a client of this level; the same where nothing has to be left out. */
export const toldByLevel = (body: AnswerBody, level: number): AnswerBody => {
  if (level >= drainingSince) return body;
  switch (body.kind) {
    case 'status': {
      const { status } = body;
      return { ...body, status: { ...status, members: status.members.map(withoutDraining) } };
    }
    case 'members':
      return { ...body, list: { ...body.list, members: body.list.members.map(withoutDraining) } };
    default:
      return body;
  }
};

const withoutDraining = <T extends { readonly draining?: true }>({ draining: _draining, ...rest }: T) => rest;

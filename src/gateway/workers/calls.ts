/**
 * What the main thread asks a gateway thread to do, apart from what the server says: each is answered when it is done. To
 * add one: a line in `Calls`, and one in `perform`. Arguments and results are plain data that JSON can hold.
 */
import { FuturestoreError, isErrorCode } from '../../protocol/index.ts';
import type { AgentsMove } from '../../server/index.ts';
import type { RealmDocument } from '../../scopes/index.ts';
import type { CertificateAndKey, Listening, SharedSocket } from '../door.ts';
import type { LocalGateway } from '../gateway.ts';

export interface Calls {
  /** null: opens the socket. */
  readonly listen: { readonly argument: SharedSocket | null; readonly result: Listening };
  readonly stopAccepting: {
    readonly argument: { readonly keepDescriptor: boolean };
    readonly result: void;
  };
  /** null: opens the socket. */
  readonly admit: { readonly argument: SharedSocket | null; readonly result: Listening };
  readonly stay: { readonly argument: null; readonly result: void };
  readonly sendAway: {
    readonly argument: { readonly moves: readonly AgentsMove[]; readonly graceMs: number };
    readonly result: number;
  };
  readonly drain: { readonly argument: number; readonly result: void };
  readonly close: { readonly argument: null; readonly result: void };
  readonly replaceCertificate: { readonly argument: CertificateAndKey; readonly result: void };
  readonly replaceFileRealms: {
    readonly argument: Readonly<Record<string, RealmDocument>>;
    readonly result: void;
  };
  readonly lookForLists: { readonly argument: null; readonly result: void };
}

export type CallName = keyof Calls;

type Perform<Name extends CallName> = (
  gateway: LocalGateway,
  argument: Calls[Name]['argument'],
) => Calls[Name]['result'] | Promise<Calls[Name]['result']>;

export const perform: { readonly [Name in CallName]: Perform<Name> } = {
  listen: (gateway, shared) => gateway.listen(shared ?? undefined),
  stopAccepting: (gateway, { keepDescriptor }) => gateway.stopAccepting(keepDescriptor),
  admit: async (gateway, shared) => {
    await gateway.admit(shared ?? undefined);
    if (gateway.listening === undefined) throw new Error('a gateway was to listen again that never did');
    return gateway.listening;
  },
  stay: (gateway) => gateway.stay(),
  sendAway: (gateway, { moves, graceMs }) => gateway.sendAway(moves, graceMs),
  drain: (gateway, graceMs) => gateway.drain(graceMs),
  close: (gateway) => gateway.close(),
  replaceCertificate: (gateway, certificate) => gateway.replaceCertificate(certificate),
  replaceFileRealms: (gateway, realms) => gateway.replaceFileRealms(realms),
  lookForLists: (gateway) => gateway.lookForLists(),
};

/** What of an error is of use on the other side: its words, its code, and of a listen error which port. */
export interface CrossingError {
  readonly message: string;
  readonly code?: string;
  readonly syscall?: string;
  readonly port?: number;
}

export const crossing = (error: unknown): CrossingError => {
  if (!(error instanceof Error)) return { message: String(error) };
  const { message, code, syscall, port } = error as Error & Partial<CrossingError>;
  return {
    message,
    ...(code !== undefined && { code }),
    ...(syscall !== undefined && { syscall }),
    ...(port !== undefined && { port }),
  };
};

export const crossed = (error: CrossingError): Error => {
  const { message, code, ...rest } = error;
  if (code !== undefined && isErrorCode(code)) return new FuturestoreError(code, message);
  return Object.assign(new Error(message), rest, code !== undefined && { code });
};

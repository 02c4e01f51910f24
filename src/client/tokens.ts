/** Tokens (JWT) that a client shows in place of a certificate, or beside one. */
import { FuturestoreError, helloProblem } from '../protocol/index.ts';

/**
 * A token as it is, or what gets one: asked for each connection, and again before the one that was shown expires.
 * What it throws is told, so it must have no secret in it.
 */
export type TokenSource = string | (() => string | Promise<string>);

/** Rejects with what the source threw, or INVALID_ARGUMENT for what is no token. */
export async function currentToken(source: TokenSource): Promise<string> {
  const token = typeof source === 'string' ? source : await source();
  const problem = tokenProblem(token);
  if (problem !== undefined) throw new FuturestoreError('INVALID_ARGUMENT', problem);
  return token;
}

/** What is wrong with it, without showing it; undefined: it has the form of a token. */
export function tokenProblem(token: unknown): string | undefined {
  if (typeof token !== 'string') return 'a token must be text';
  return helloProblem({ clientName: '', clientVersion: '', token })?.message.replace(
    'hello.token',
    'the token',
  );
}

export function tokenError(error: unknown): FuturestoreError {
  const why = error instanceof Error ? error.message : String(error);
  return new FuturestoreError('UNAVAILABLE', `no token could be had: ${why}`, { cause: error });
}

/** A newer token on the same connection, before the one that it was opened with expires. */
import type { ClientLogger } from './environment.ts';
import type { Link } from './link.ts';
import { currentToken, tokenError } from './tokens.ts';
import type { TokenSource } from './tokens.ts';

export interface TokenRenewalOptions {
  readonly token: TokenSource | undefined;
  readonly logger: ClientLogger | undefined;
}

export interface TokenRenewalOwner {
  /** The present link. */
  link(): Link | undefined;
  authenticate(token: string): void;
}

/** Where it fails the server closes the connection in the end, and the next one asks for a token again. */
export class TokenRenewal {
  readonly #options: TokenRenewalOptions;
  readonly #owner: TokenRenewalOwner;
  /** A token is being got for it; for another link it is asked for anew, as this one may never come. */
  #underWayFor: Link | undefined;

  constructor(options: TokenRenewalOptions, owner: TokenRenewalOwner) {
    this.#options = options;
    this.#owner = owner;
  }

  /** The server says so again and again until it has a newer one. */
  begin(remainingMs: number): void {
    const link = this.#owner.link();
    if (link === undefined || this.#underWayFor === link) return;
    const { token, logger } = this.#options;
    if (typeof token !== 'function') {
      logger?.warn({ remainingMs }, 'the token expires soon, and this client can get no other by itself');
      return;
    }
    this.#underWayFor = link;
    const isOver = (): void => {
      if (this.#underWayFor === link) this.#underWayFor = undefined;
    };
    currentToken(token).then(
      (text) => {
        isOver();
        // Another link has said hello with a token of its own.
        if (this.#owner.link() === link) this.#owner.authenticate(text);
      },
      (error: unknown) => {
        isOver();
        logger?.warn({ problem: tokenError(error).message, remainingMs }, 'the token was not renewed');
      },
    );
  }

  refused(problem: string): void {
    this.#options.logger?.warn({ problem }, 'the token was not renewed');
  }
}

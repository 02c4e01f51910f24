/** What the log says of a connection whose identity does not let it in, or does not let it stay. */
import { closeCodes } from '../protocol/index.ts';
import type { ConnectionId } from '../server/index.ts';
import type { GatewaySetup, TurnedAwayStage } from './settings.ts';

interface ShutOutConnection {
  readonly id: ConnectionId;
  readonly greeted: boolean;
  readonly identity: object | undefined;
  readonly principal: string;
}

export class ShutOut {
  readonly #setup: GatewaySetup;
  readonly #connection: ShutOutConnection;
  readonly #remote: string | undefined;
  #turnedAway = false;

  constructor(setup: GatewaySetup, connection: ShutOutConnection, remote: string | undefined) {
    this.#setup = setup;
    this.#connection = connection;
    this.#remote = remote;
  }

  /** It has been counted among those. */
  get wasTurnedAway(): boolean {
    return this.#turnedAway;
  }

  /** By who it is. `principal`: 'realm:name', as far as it was proved. */
  tell(code: number, problem: string, principal?: string): void {
    const { greeted, identity } = this.#connection;
    if (greeted) this.#ended(code, problem);
    else this.turnedAway('identity', code, problem, principal ?? (identity && this.#connection.principal));
  }

  /** It was never let in. */
  turnedAway(stage: TurnedAwayStage, code: number, problem: string, principal: string | undefined): void {
    this.#turnedAway = true;
    const { id: connection } = this.#connection;
    const remote = this.#remote;
    this.#setup.turnedAway.identity({ stage, connection, principal, problem, remote, code });
  }

  /** It was let in, and its identity does not count any more. */
  #ended(code: number, problem: string): void {
    const { id: connection, principal } = this.#connection;
    const fields = { connection, principal, remote: this.#remote, problem, code };
    if (code === closeCodes.revoked)
      this.#setup.logger.warn(
        { audit: 'revoked', ...fields },
        'a connection with a revoked credential is closed',
      );
    else
      this.#setup.logger.warn(
        { audit: 'ended', ...fields },
        'a connection whose identity counts no more is closed',
      );
  }
}

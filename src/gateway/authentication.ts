/** Who is at the other end of one connection, how that was shown, until when it counts, and how it is renewed. */
import { closeCodes, mayReconnect } from '../protocol/index.ts';
import type { Failure } from '../protocol/index.ts';
import type { Identify, IdentityJudge } from './door.ts';
import { principalText } from './identity.ts';
import type { Identity, IdentityRefusal, IdentityVerdict } from './identity.ts';
import type { GatewaySetup } from './settings.ts';

/** The last fifth of what a token has left when it is shown, but at least so long, is time to bring a newer one. */
const expiringShare = 0.2;
const expiringMsMin = 30_000;

/** What it asks of its connection. */
export interface AuthenticationOwner {
  /** It is known who it is, or that one has other variables now: `become` is called, or the connection ends. */
  identified(identity: Identity): void;
  /** The token expires in so many milliseconds. */
  expiring(remainingMs: number): void;
  renewed(request: number, expiresInMs: number): void;
  refuse(request: number, failure: Failure): void;
  /** Ends the connection, because of who it is. `principal`: 'realm:name', of one of whom nothing was known before. */
  turnAway(code: number, problem: string, principal?: string): void;
  /** What was shown counts no more: nothing of what waits may still leave. */
  revoke(code: number, problem: string): void;
  /** Runs what comes later; not at all once the connection has ended. */
  later(work: () => void): void;
}

export class Authentication {
  readonly #setup: GatewaySetup;
  readonly #judge: IdentityJudge;
  readonly #identify: Identify | undefined;
  readonly #owner: AuthenticationOwner;
  #identity: Identity | undefined;
  /** Of the realms by which it was judged; 0: not since it became who it is. */
  #version = 0;
  /** Milliseconds since 1970: from then on the client is told, at each heartbeat. */
  #tellFromMs = Infinity;
  #triedAtMs = -Infinity;
  #verifying = false;
  /** The request whose token is being verified. */
  #renewing: number | undefined;

  constructor(
    setup: GatewaySetup,
    judge: IdentityJudge,
    identify: Identify | undefined,
    owner: AuthenticationOwner,
  ) {
    this.#setup = setup;
    this.#judge = judge;
    this.#identify = identify;
    this.#owner = owner;
  }

  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** 'realm:name'; 'nobody' before that is known. */
  get principal(): string {
    return this.#identity === undefined ? 'nobody' : principalText(this.#identity);
  }

  /** Whether this request is one to authenticate, and unanswered. */
  isRenewedBy(request: number): boolean {
    return this.#renewing === request;
  }

  become(identity: Identity): void {
    this.#identity = identity;
    // Its token was verified, or its admission asked for, in the meantime: realms may be others than when it was judged.
    this.#version = 0;
    this.#tellFromMs = Infinity;
    // Clients from before there were tokens would not understand; who has shown one does.
    if (identity.proof.token === undefined) return;
    const leftMs = identity.expiresAtMs - this.#setup.clock.wallMs();
    // A heartbeat may be as late as the time between two of them.
    const spareMs = Math.max(expiringShare * leftMs, expiringMsMin) + this.#setup.limits.heartbeatMs;
    this.#tellFromMs = identity.expiresAtMs - spareMs;
  }

  /** At each heartbeat, after `review`. */
  check(wallMs: number): void {
    const identity = this.#identity;
    if (identity === undefined) return;
    if (wallMs >= identity.expiresAtMs) this.#expired(identity);
    else if (wallMs >= this.#tellFromMs)
      this.#owner.expiring(Math.max(0, Math.ceil(identity.expiresAtMs - wallMs)));
  }

  #expired({ proof }: Identity): void {
    const what = proof.token === undefined ? 'certificate' : 'token or certificate';
    this.#owner.turnAway(closeCodes.authenticationExpired, `the client's ${what} has expired: renew it`);
  }

  /** Judges anew where realms or revocation lists are others than when it was judged last. Before each thing that is done. */
  review(): void {
    if (this.#identity !== undefined && this.#version !== this.#judge.version)
      this.#judgeAgain(this.#identity, this.#setup.clock.wallMs());
  }

  /** Who it is as of now, where nothing more is done for it; undefined: what it showed counts no more. */
  get identityNow(): Identity | undefined {
    const identity = this.#identity;
    if (identity === undefined || this.#version === this.#judge.version) return identity;
    const verdict = this.#judge.judgeAgain(identity, this.#setup.clock.wallMs());
    if (verdict.ok) return verdict.identity;
    return mayReconnect(verdict.closeCode) ? identity : undefined;
  }

  #judgeAgain(identity: Identity, wallMs: number): void {
    if (wallMs >= identity.expiresAtMs) {
      this.#expired(identity);
      return;
    }
    const verdict = this.#judge.judgeAgain(identity, wallMs);
    if (!verdict.ok) {
      // Who only has to come again, or may later, has nothing taken away.
      if (mayReconnect(verdict.closeCode)) this.#owner.turnAway(verdict.closeCode, verdict.problem);
      else this.#owner.revoke(verdict.closeCode, verdict.problem);
    } else if (verdict.identity !== identity) this.#owner.identified(verdict.identity);
    else this.#version = this.#judge.version;
  }

  /** By the token in hello: ends in `identified` and then `done`, or in `turnAway`. */
  greet(token: string, done: () => void): void {
    this.#verify(token, (verdict) => {
      if (verdict.ok) {
        this.#owner.identified(verdict.identity);
        done();
      } else {
        this.#owner.turnAway(verdict.closeCode, verdict.problem, verdict.principal);
      }
    });
  }

  /** By a newer token: ends in `renewed` or `refuse`. Where it is refused what was there before counts on. */
  renew(request: number, token: string): void {
    const { authenticateEveryMs } = this.#setup.limits;
    if (this.#verifying || this.#setup.clock.nowMs() - this.#triedAtMs < authenticateEveryMs) {
      const message = `a token is being verified, or one was less than ${authenticateEveryMs} ms ago: wait`;
      this.#owner.refuse(request, { code: 'TOO_MANY_REQUESTS', message });
      return;
    }
    this.#renewing = request;
    this.#verify(token, (verdict) => {
      this.#renewing = undefined;
      if (verdict.ok) {
        this.#owner.identified(verdict.identity);
        const leftMs = verdict.identity.expiresAtMs - this.#setup.clock.wallMs();
        this.#owner.renewed(request, Math.max(0, Math.floor(leftMs)));
      } else {
        this.#owner.refuse(request, { code: 'UNAUTHENTICATED', message: verdict.problem });
      }
    });
  }

  #verify(token: string, done: (verdict: IdentityVerdict) => void): void {
    this.#triedAtMs = this.#setup.clock.nowMs();
    this.#verifying = true;
    const tell = (verdict: IdentityVerdict): void => {
      this.#verifying = false;
      this.#owner.later(() => done(this.#sameOrRefused(verdict)));
    };
    if (this.#identify === undefined) tell(refused('no tokens are taken here'));
    else this.#identify(token).then(tell, () => tell(refused('the token could not be verified')));
  }

  /** Whoever it was before, it stays the same principal. */
  #sameOrRefused(verdict: IdentityVerdict): IdentityVerdict {
    const before = this.#identity;
    if (!verdict.ok || before === undefined || principalText(before) === principalText(verdict.identity))
      return verdict;
    return refused(
      `the token is of ${principalText(verdict.identity)}, but the connection of ${principalText(before)}: connect anew to be another one`,
    );
  }
}

const refused = (problem: string): IdentityRefusal => ({
  ok: false,
  problem,
  closeCode: closeCodes.unauthenticated,
});

/** Who is at the other end of one connection, how that was shown, and until when it counts. */
import { closeCodes } from '../protocol/index.ts';
import type { Identity, IdentityVerdict } from './identity.ts';
import type { IdentityJudge, Identify } from './door.ts';

/** The last fifth of what a token has left when it is shown, but at least so long, is time to bring a newer one. */
const expiringShare = 0.2;
const expiringMsMin = 30_000;

/** What is to be done at a heartbeat. */
export type Checked =
  | { readonly kind: 'fine' }
  | { readonly kind: 'over'; readonly closeCode: number; readonly reason: string }
  /** By realms that have changed it is somebody with other variables. */
  | { readonly kind: 'changed'; readonly identity: Identity }
  | { readonly kind: 'expiring'; readonly remainingMs: number };

export class Authentication {
  readonly #judge: IdentityJudge;
  readonly #identify: Identify | undefined;
  readonly #heartbeatMs: number;
  #identity: Identity | undefined;
  #version = 0;
  /** Milliseconds since 1970: from then on the client is told, at each heartbeat. */
  #tellFromMs = Infinity;
  #triedAtMs = -Infinity;
  #verifying = false;

  constructor(judge: IdentityJudge, identify: Identify | undefined, heartbeatMs: number) {
    this.#judge = judge;
    this.#identify = identify;
    this.#heartbeatMs = heartbeatMs;
  }

  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** 'realm:name'; 'nobody' before that is known. */
  get principal(): string {
    return this.#identity === undefined ? 'nobody' : principalText(this.#identity);
  }

  become(identity: Identity, wallMs: number): void {
    this.#identity = identity;
    this.#version = this.#judge.version;
    this.#tellFromMs = Infinity;
    // Clients from before there were tokens would not understand; who has shown one does.
    if (identity.proof.token === undefined) return;
    const leftMs = identity.expiresAtMs - wallMs;
    // A heartbeat may be as late as the time between two of them.
    const spareMs = Math.max(expiringShare * leftMs, expiringMsMin) + this.#heartbeatMs;
    this.#tellFromMs = identity.expiresAtMs - spareMs;
  }

  check(wallMs: number): Checked {
    const identity = this.#identity;
    if (identity === undefined) return { kind: 'fine' };
    if (wallMs >= identity.expiresAtMs) {
      const what = identity.proof.token === undefined ? 'certificate' : 'token or certificate';
      const reason = `the client's ${what} has expired: renew it`;
      return { kind: 'over', closeCode: closeCodes.authenticationExpired, reason };
    }
    const verdict = this.#rejudged(identity, wallMs);
    if (!verdict.ok) return { kind: 'over', closeCode: verdict.closeCode, reason: verdict.problem };
    if (verdict.identity !== identity) return { kind: 'changed', identity: verdict.identity };
    if (wallMs < this.#tellFromMs) return { kind: 'fine' };
    return { kind: 'expiring', remainingMs: Math.max(0, Math.ceil(identity.expiresAtMs - wallMs)) };
  }

  #rejudged(identity: Identity, wallMs: number): IdentityVerdict {
    if (this.#version === this.#judge.version) return { ok: true, identity };
    const verdict = this.#judge.judgeAgain(identity, wallMs);
    if (verdict.ok) {
      this.#identity = verdict.identity;
      this.#version = this.#judge.version;
    }
    return verdict;
  }

  /** Whether a token may be verified now: one at a time, and not too many. Verifying is the dearest thing one can ask. */
  mayTry(nowMs: number, intervalMs: number): boolean {
    return !this.#verifying && nowMs - this.#triedAtMs >= intervalMs;
  }

  /** Calls back once, later. Whoever it was before, it stays the same principal or is refused. */
  try(token: string, nowMs: number, done: (verdict: IdentityVerdict) => void): void {
    this.#triedAtMs = nowMs;
    this.#verifying = true;
    const tell = (verdict: IdentityVerdict): void => {
      this.#verifying = false;
      done(verdict);
    };
    if (this.#identify === undefined) {
      queueMicrotask(() => tell({ ok: false, problem: 'no tokens are taken here', closeCode: closeCodes.unauthenticated }));
      return;
    }
    this.#identify(token).then(
      (verdict) => tell(this.#sameOrRefused(verdict)),
      () => tell({ ok: false, problem: 'the token could not be verified', closeCode: closeCodes.unauthenticated }),
    );
  }

  #sameOrRefused(verdict: IdentityVerdict): IdentityVerdict {
    const before = this.#identity;
    if (!verdict.ok || before === undefined || principalText(before) === principalText(verdict.identity))
      return verdict;
    const problem = `the token is of ${principalText(verdict.identity)}, but the connection of ${principalText(before)}: connect anew to be another one`;
    return { ok: false, problem, closeCode: closeCodes.unauthenticated };
  }
}

export const principalText = ({ principal }: Identity): string => `${principal.realm}:${principal.name}`;

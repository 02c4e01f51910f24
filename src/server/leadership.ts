/**
 * Who should lead: leadership is handed over when an operator asks for it, when this server stops, and when its disk or
 * its loop has become too slow to lead.
 */
import type { AnswerBody } from '../protocol/index.ts';
import { asMemberId, type MemberId, type Raft, type SoftState } from '../raft/index.ts';
import type { Environment, Logger } from './environment.ts';
import { allVoters } from './member-directory.ts';
import type { Membership } from './membership.ts';
import type { Outgoing } from './outgoing.ts';
import type { InFlight } from './requests.ts';
import type { PeerStatuses } from './status.ts';

/** A request for a transfer is given up after so many election timeouts. */
const patience = 3;

/** A server that was too slow may be so again soon: it does not hand over again for so many election timeouts. */
const cooldown = 5;

/** The first version of the peer protocol in which a follower can ask the leader to hand over. */
const peerVersionLeast = 2;

/** Entries that a member may lack to be handed leadership while nothing presses: it gets them within the transfer. */
const lagMax = 1000;

interface Asked {
  readonly inFlight: InFlight;
  /** undefined: whoever but the leader of that time. */
  readonly target: number | undefined;
  readonly oldLeader: number | undefined;
  readonly untilMs: number;
  /** Raft gives a transfer up after an election timeout. */
  againMs: number;
}

export interface LeadershipOptions {
  readonly self: number;
  readonly raft: Raft;
  readonly soft: () => SoftState;
  readonly membership: Membership;
  readonly statuses: PeerStatuses;
  readonly outgoing: Outgoing;
  /** It is not to lead while another one can; this server itself may be one. */
  readonly isDraining: (member: number) => boolean;
  readonly environment: Environment;
  readonly logger: Logger;
  readonly electionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly tickMs: number;
  readonly answer: (inFlight: InFlight, body: AnswerBody) => void;
  /** Raft was told something: another turn is needed. */
  readonly schedule: () => void;
}

export class Leadership {
  readonly #options: LeadershipOptions;
  #asked: Asked[] = [];
  #whenNotLeading: (() => void)[] = [];
  #tickedMs: number | undefined;
  #handedOverMs = -Infinity;

  constructor(options: LeadershipOptions) {
    this.#options = options;
  }

  // ---- for operators ----

  /** `member` undefined: to the most up-to-date one. */
  request(inFlight: InFlight, member: number | undefined): void {
    const { membership, environment, electionTimeoutMs, soft } = this.#options;
    if (member !== undefined && !allVoters(membership.configuration).includes(member)) {
      const message = `member ${member} does not vote, so it cannot lead: see the list of members`;
      this.#options.answer(inFlight, { kind: 'failed', failure: { code: 'MEMBERSHIP_REFUSED', message } });
      return;
    }
    if (member !== undefined && this.#options.isDraining(member)) {
      const message = `member ${member} is drained, and would hand leadership over again: end its drain first`;
      this.#options.answer(inFlight, { kind: 'failed', failure: { code: 'MEMBERSHIP_REFUSED', message } });
      return;
    }
    const nowMs = environment.monotonicMs();
    this.#asked.push({
      inFlight,
      target: member,
      oldLeader: soft().leader,
      untilMs: nowMs + patience * electionTimeoutMs,
      againMs: nowMs,
    });
    this.#advance(nowMs);
  }

  /** A follower has been asked by an operator. */
  requestedByPeer(target: MemberId): void {
    const { soft, raft } = this.#options;
    if (soft().role === 'leader') raft.step({ kind: 'transfer_leader', target });
  }

  #advance(nowMs: number): void {
    const { soft, answer } = this.#options;
    const { leader } = soft();
    this.#asked = this.#asked.filter((asked) => {
      if (asked.inFlight.over) return false;
      if (leader !== undefined && (asked.target ?? leader) === leader && !isOld(asked, leader)) {
        answer(asked.inFlight, { kind: 'leader_transferred', member: leader });
        return false;
      }
      if (nowMs >= asked.untilMs) {
        const whom = asked.target === undefined ? 'no other member' : `member ${asked.target}`;
        const message = `${whom} leads after ${patience} election timeouts: it may be behind, or out of reach`;
        answer(asked.inFlight, { kind: 'failed', failure: { code: 'UNAVAILABLE', message } });
        return false;
      }
      if (nowMs >= asked.againMs) this.#ask(asked, nowMs);
      return true;
    });
  }

  #ask(asked: Asked, nowMs: number): void {
    const { soft, raft, outgoing, membership, schedule, electionTimeoutMs } = this.#options;
    const { role, leader } = soft();
    const target = asked.target ?? (role === 'leader' ? this.#mostUpToDate()?.id : this.#likeliest());
    if (leader === undefined || target === undefined) return;
    if (role === 'leader') {
      raft.step({ kind: 'transfer_leader', target: asMemberId(target) });
      schedule();
    } else if ((membership.versionOf(leader) ?? 0) < peerVersionLeast || !outgoing.transferTo(target)) return;
    asked.againMs = nowMs + electionTimeoutMs;
  }

  /** As far as a follower has heard. */
  #likeliest(): number | undefined {
    const { soft, statuses, self } = this.#options;
    const applied = (id: number): number =>
      id === self ? this.#options.raft.status().applied : statuses.appliedOf(id);
    const [best] = this.#candidates()
      .filter((id) => id !== soft().leader)
      .sort((a, b) => this.#rank(a) - this.#rank(b) || applied(b) - applied(a));
    return best;
  }

  /** Those who vote, are there, and are to stay. */
  #candidates(): number[] {
    const { membership } = this.#options;
    const { wanted } = membership;
    return allVoters(membership.configuration).filter(
      (id) => wanted.voters.some((voter) => voter === id) && membership.isReachable(id),
    );
  }

  /** Those who are drained come last. */
  #rank(member: number): number {
    return this.#options.isDraining(member) ? 1 : 0;
  }

  // ---- of its own accord ----

  /**
   * To one that is not drained, and lacks so little that writes wait but a moment. Whether that was begun; raft gives it up
   * after an election timeout.
   */
  giveAway(): boolean {
    const { soft, raft, schedule, isDraining } = this.#options;
    if (soft().role !== 'leader') return false;
    const target = this.#mostUpToDate();
    if (target === undefined || isDraining(target.id)) return false;
    if (raft.status().lastIndex - target.match > lagMax) return false;
    raft.step({ kind: 'transfer_leader', target: target.id });
    schedule();
    return true;
  }

  /** `diskBusyMs`: how long the present write has been under way. */
  tick(nowMs: number, diskBusyMs: number): void {
    const { tickMs, electionTimeoutMs, soft, raft, logger } = this.#options;
    const lateMs = this.#tickedMs === undefined ? 0 : nowMs - this.#tickedMs - tickMs;
    this.#tickedMs = nowMs;
    this.#advance(nowMs);
    if (soft().role !== 'leader' || Math.max(lateMs, diskBusyMs) <= electionTimeoutMs / 2) return;
    // A leader whose disk or loop hangs applies and answers nothing, while the others could; and it holds up what
    // would tell them so as long as its heartbeats go out.
    if (nowMs - this.#handedOverMs < cooldown * electionTimeoutMs) return;
    const target = this.#mostUpToDate()?.id;
    if (target === undefined) return;
    this.#handedOverMs = nowMs;
    logger.warn({ lateMs, diskBusyMs, to: target }, 'this server is too slow to lead and hands over');
    raft.step({ kind: 'transfer_leader', target });
  }

  roleChanged({ role }: SoftState): void {
    if (role !== 'leader') {
      const waiting = this.#whenNotLeading;
      this.#whenNotLeading = [];
      for (const resolve of waiting) resolve();
    }
    this.#advance(this.#options.environment.monotonicMs());
  }

  /** For a stop: resolves when another one leads, or none can be made to within an election timeout. */
  async handOver(): Promise<void> {
    const { soft, raft, environment, electionTimeoutMs, heartbeatIntervalMs, schedule } = this.#options;
    if (soft().role !== 'leader') return;
    const target = this.#mostUpToDate()?.id;
    if (target === undefined) return;
    await new Promise<void>((resolve) => {
      this.#whenNotLeading.push(resolve);
      environment.setTimer(electionTimeoutMs, resolve);
      raft.step({ kind: 'transfer_leader', target });
      schedule();
    });
    // The new leader's first messages are answered, so that it does not wait for them.
    await new Promise<void>((resolve) => {
      environment.setTimer(heartbeatIntervalMs, resolve);
    });
  }

  /** Of those who are not drained, if there are any. */
  #mostUpToDate(): { readonly id: MemberId; readonly match: number } | undefined {
    const voters = allVoters(this.#options.membership.configuration);
    const { voters: wanted } = this.#options.membership.wanted;
    let best: { readonly id: MemberId; readonly match: number } | undefined;
    for (const peer of this.#options.raft.status().progress) {
      if (!peer.recentlyActive || !voters.includes(peer.id) || !wanted.includes(peer.id)) continue;
      const rank = best === undefined ? 1 : this.#rank(best.id) - this.#rank(peer.id);
      if (best === undefined || rank > 0 || (rank === 0 && peer.match > best.match)) best = peer;
    }
    return best;
  }
}

/** Who led when another one was asked for. */
const isOld = ({ target, oldLeader }: Asked, leader: number): boolean =>
  target === undefined && leader === oldLeader;

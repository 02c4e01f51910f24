/**
 * How late it may be in the cluster. A value is fresh until an instant of cluster time, so the relay asks for that time
 * now and then and carries it on: never less than has passed, so that what counts as fresh is.
 *
 * What has passed is measured twice, by the time since boot (which goes on while the machine sleeps, in all processes
 * alike) and by the wall clock, and the greater counts: a wall clock that is set back makes nothing fresh again; one that
 * is set forward makes the cache useless until the servers are asked again. After a reboot only the servers can tell.
 */
import { readFileSync } from 'node:fs';

export interface MachineClock {
  /** Another one after each boot. */
  readonly bootId: string;
  /** Milliseconds since boot, with the time that the machine slept. */
  sinceBootMs(): number;
  /** Milliseconds since 1970, as the machine believes. */
  wallMs(): number;
}

/** Some moment, by both of the machine's clocks. */
export interface Moment {
  readonly bootId: string;
  readonly sinceBootMs: number;
  readonly wallMs: number;
}

/** Cluster time was at most this when that moment came. */
export interface Anchor {
  readonly clusterTimeMs: number;
  readonly moment: Moment;
}

/** /proc/uptime is the boot time clock, in hundredths of a second. */
const uptimeStepMs = 10;

/**
 * By how much the cluster's clock may be quicker than this machine's: it is pulled by at most a thousandth, and quartz
 * adds a hundredth of that.
 */
const driftMax = 1 / 500;

export const linuxClock = (): MachineClock => {
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  let read: number | undefined;
  const forget = (): void => {
    read = undefined;
  };
  return {
    bootId,
    sinceBootMs: () => {
      // Read once for the thousands of keys that one request may name.
      if (read === undefined) {
        read = Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000;
        queueMicrotask(forget);
      }
      return read;
    },
    wallMs: () => Date.now(),
  };
};

const momentOf = (clock: MachineClock): Moment => ({
  bootId: clock.bootId,
  sinceBootMs: clock.sinceBootMs(),
  wallMs: clock.wallMs(),
});

/** Milliseconds from then to now: at least what has passed; undefined: nobody can tell, the machine was booted since. */
export const elapsedMs = (then: Moment, now: Moment): number | undefined => {
  const sinceBoot = now.sinceBootMs - then.sinceBootMs;
  // A container's uptime may begin anew under the same boot id.
  if (then.bootId !== now.bootId || sinceBoot < 0) return undefined;
  return Math.max(sinceBoot, now.wallMs - then.wallMs);
};

export class ClusterClock {
  readonly #machine: MachineClock;
  #anchor: Anchor | undefined;

  constructor(machine: MachineClock, anchor?: Anchor) {
    this.#machine = machine;
    this.#anchor = anchor;
  }

  get anchor(): Anchor | undefined {
    return this.#anchor;
  }

  moment(): Moment {
    return momentOf(this.#machine);
  }

  /** A server was asked at that moment and said so. */
  told(clusterTimeMs: number, asked: Moment): Anchor {
    this.#anchor = { clusterTimeMs, moment: asked };
    return this.#anchor;
  }

  forget(): void {
    this.#anchor = undefined;
  }

  /** The latest that it can be in the cluster, in milliseconds since 1970; undefined: not known. */
  latestMs(): number | undefined {
    if (this.#anchor === undefined) return undefined;
    const passed = elapsedMs(this.#anchor.moment, this.moment());
    if (passed === undefined) return undefined;
    return this.#anchor.clusterTimeMs + Math.ceil(passed * (1 + driftMax)) + 2 * uptimeStepMs;
  }

  /** Whether what expires then is certainly fresh now. undefined: it never expires. */
  isFresh(expiresAtMs: number | undefined): boolean {
    if (expiresAtMs === undefined) return true;
    const latestMs = this.latestMs();
    return latestMs !== undefined && latestMs < expiresAtMs;
  }
}

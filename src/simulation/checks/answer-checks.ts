/**
 * What clients were told, held against each other: the same answer for the same request, one outcome for each
 * generation, and no value handed out that was past its time when it was asked for.
 */
import type { HistorySeen } from './history.ts';
import { violated } from './violation.ts';

export class AnswerChecks {
  readonly #answers = new Map<string, string>();
  readonly #outcomes = new Map<string, { readonly outcome: string; readonly where: string }>();

  /** A write's answer as it left a server. Errors that mean "not known here (any more)" are not to be passed in. */
  answered(session: string, sequence: number, answer: string): void {
    const id = `${session}/${sequence}`;
    const before = this.#answers.get(id);
    if (before === undefined) this.#answers.set(id, answer);
    else if (before !== answer) {
      violated('same answer', `write ${id} was answered "${before}", and then "${answer}"`);
    }
  }

  /** A future as anyone was shown it: by a read, an await, a push, or as the outcome of a write of its own. */
  shown(key: string, seen: HistorySeen, where: string): void {
    if (seen.state !== 'resolved' && seen.state !== 'rejected') return;
    const id = `${key}#${seen.generation}`;
    const outcome = seen.state === 'resolved' ? `resolved "${seen.value}"` : `rejected ${seen.code}`;
    const before = this.#outcomes.get(id);
    if (before === undefined) this.#outcomes.set(id, { outcome, where });
    else if (before.outcome !== outcome) {
      violated(
        'settled at most once',
        `${key} in generation ${seen.generation} was ${outcome} for ${where}, and ${before.outcome} for ${before.where}`,
      );
    }
  }

  /**
   * A linearizable read that was asked for when some server's state was at cluster time `askedAtMs` must not show as
   * fresh what that time has passed.
   */
  fresh(key: string, seen: HistorySeen, askedAtMs: number, slackMs = 0): void {
    if (seen.state !== 'resolved' && seen.state !== 'rejected') return;
    if (seen.expiresAtMs === undefined || seen.expiresAtMs + slackMs > askedAtMs) return;
    violated(
      'nothing stale',
      `${key} in generation ${seen.generation} was shown as ${seen.state}: fresh until ${seen.expiresAtMs}, ` +
        `asked for at ${askedAtMs}`,
    );
  }
}

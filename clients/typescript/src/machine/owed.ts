// Verdicts whose lease was lost before they were stored: kept for a while, in case the event comes again. Pure.

import type { Verdict } from "./verdict.js";

/** So many are kept; the oldest are forgotten, and their events are done again. */
export const MOST_OWED = 4096;

/** The verdicts, by sequence, the oldest first. */
export class Owed {
  private readonly verdicts = new Map<bigint, Verdict>();

  get size(): number {
    return this.verdicts.size;
  }

  put(sequence: bigint, verdict: Verdict): void {
    this.verdicts.set(sequence, verdict);
    if (this.verdicts.size > MOST_OWED) {
      const [oldest] = this.verdicts.keys();
      this.verdicts.delete(oldest as bigint);
    }
  }

  take(sequence: bigint): Verdict | undefined {
    const verdict = this.verdicts.get(sequence);
    this.verdicts.delete(sequence);
    return verdict;
  }

  clear(): void {
    this.verdicts.clear();
  }
}

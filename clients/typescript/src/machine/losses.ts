// How often sessions were lost, by reason. Pure.

import type { SwitchyardError } from "../error.js";

/** Losses are counted by at most this many reasons; further ones are counted together. */
export const MOST_REASONS = 64;

/** The counts. */
export class Losses {
  private readonly counts = new Map<string, number>();

  /** One more: by the reason that the hub has named, or by the code. */
  count(error: SwitchyardError): void {
    let reason: string = error.reason === "" ? error.code : error.reason;
    if (!this.counts.has(reason) && this.counts.size >= MOST_REASONS) {
      reason = "OTHER";
    }
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1);
  }

  all(): Record<string, number> {
    return Object.fromEntries(this.counts);
  }
}

// What came for one subscription and was not taken: events, gaps in their place, and the news that it has caught up. Pure.
//
// Bounded: credit bounds the events, and gaps that follow each other are made one.

import { count, exact, type WireGap, type WireReceived } from "../wire.js";
import { NOTHING, type Size } from "./credit.js";

/** Gaps that wait; further ones are added to the last. The hub needs no credit to send them. */
export const MOST_GAPS = 64;

/** Why events are lost to a subscription: `away` means that the client had no session and nobody keeps events for it. */
export type GapReason = "overflow" | "conflated" | "retention" | "epoch" | "away" | "other";

/** Events that a subscription does not get. */
export interface Missing {
  readonly reason: GapReason;
  /** How many, where that is known. */
  readonly count: number | undefined;
  /** The first sequence that is lost, in a stream. */
  readonly from: bigint | undefined;
  /** The last one. */
  readonly to: bigint | undefined;
}

/** An event that came. */
export interface Arrived {
  readonly event: WireReceived;
  readonly sequence: bigint;
  /** Tells it from another time that the same event was in hand; 0 where nothing is acknowledged. */
  readonly copy: number;
}

/** Something for whoever reads the subscription. */
export type Incoming =
  | { readonly is: "events"; readonly events: Arrived[]; readonly batch: number; readonly token: string; readonly size: Size }
  | { readonly is: "gap"; missing: Missing }
  | { readonly is: "caughtUp" };

/** All that waits. */
export class Queue {
  private all: Incoming[] = [];
  /** What is before this was taken. */
  private head = 0;
  private gaps = 0;

  get gapCount(): number {
    return this.gaps;
  }

  pushEvents(events: Arrived[], batch: number, token: string, size: Size): void {
    this.all.push({ is: "events", events, batch, token, size });
  }

  pushCaughtUp(): void {
    if (this.last()?.is !== "caughtUp") {
      this.all.push({ is: "caughtUp" });
    }
  }

  pushGap(missing: Missing): void {
    const isFull = this.gaps >= MOST_GAPS;
    let last = this.last();
    if (isFull && last?.is !== "gap") {
      // Behind events: rather a gap told too early than one that is not told.
      last = this.all.findLast((incoming) => incoming.is === "gap");
    }
    if (last?.is === "gap" && (isFull || last.missing.reason === missing.reason)) {
      last.missing = merged(last.missing, missing);
      return;
    }
    this.gaps += 1;
    this.all.push({ is: "gap", missing });
  }

  pop(): Incoming | undefined {
    const incoming = this.all[this.head];
    if (incoming === undefined) {
      return undefined;
    }
    this.head += 1;
    if (this.head === this.all.length) {
      this.all = [];
      this.head = 0;
    } else if (this.head >= 64) {
      this.all = this.all.slice(this.head);
      this.head = 0;
    }
    if (incoming.is === "gap") {
      this.gaps -= 1;
    }
    return incoming;
  }

  /** Events are forgotten, and nothing else. */
  forgetEvents(): void {
    this.all = this.all.slice(this.head).filter((incoming) => incoming.is !== "events");
    this.head = 0;
  }

  /** Everything is forgotten: how much that is in events. */
  clear(): Size {
    let size = NOTHING;
    for (const incoming of this.all.slice(this.head)) {
      if (incoming.is === "events") {
        size = { events: size.events + incoming.size.events, bytes: size.bytes + incoming.size.bytes };
      }
    }
    this.all = [];
    this.head = 0;
    this.gaps = 0;
    return size;
  }

  private last(): Incoming | undefined {
    return this.all.at(-1);
  }
}

/** Makes one of two that follow each other. */
export function merged(first: Missing, next: Missing): Missing {
  const isKnown = first.count !== undefined && next.count !== undefined;
  return {
    reason: first.reason === next.reason ? first.reason : "other",
    count: isKnown ? (first.count as number) + (next.count as number) : undefined,
    from: first.from ?? next.from,
    to: next.to ?? first.to,
  };
}

/** Of unknown size: where nobody has kept anything. */
export function unknownGap(reason: GapReason): Missing {
  return { reason, count: undefined, from: undefined, to: undefined };
}

const GAP_REASONS: Record<string, GapReason> = {
  GAP_REASON_OVERFLOW: "overflow",
  GAP_REASON_CONFLATED: "conflated",
  GAP_REASON_RETENTION: "retention",
  GAP_REASON_EPOCH: "epoch",
};

export function gapOf(gap: WireGap): Missing {
  const known = (sequence: bigint): bigint | undefined => (sequence > 0n ? sequence : undefined);
  const lost = count(gap.count);
  return {
    reason: GAP_REASONS[gap.reason ?? ""] ?? "other",
    count: lost > 0 ? lost : undefined,
    from: known(exact(gap.fromSequence)),
    to: known(exact(gap.toSequence)),
  };
}

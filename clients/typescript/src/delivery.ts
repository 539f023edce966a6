// Events in the hands of the application: what it can say of those of a group, and batches of them.

import type { Core } from "./core.js";
import { Received } from "./event.js";
import type { Keeper } from "./keeper.js";
import { leaseLost } from "./machine/hands.js";
import type { Incoming, Missing } from "./machine/incoming.js";
import type { Hold } from "./machine/table.js";
import { ACK, type Verdict } from "./machine/verdict.js";

/**
 * An event that came, and what can be said of it.
 *
 * A member of a group says of each event what became of it. What it says is sent as soon as there is a session, and the first
 * word holds. An event of which nothing is said stays in hand, and takes room in the window. Outside of groups these methods
 * do nothing.
 */
export class Delivery extends Received {
  private readonly core: Core;
  /** The hold on an event of a group. */
  private readonly hold: Hold | undefined;

  /** @internal */
  constructor(wire: Received["wire"], core: Core, hold: Hold | undefined) {
    super(wire);
    this.core = core;
    this.hold = hold;
  }

  /** Done: the group never gets it again. */
  ack(): void {
    this.settle(ACK);
  }

  /**
   * Done, and waits until the hub has stored that. Fails when the lease was lost: then the event comes again, to this member
   * or another.
   */
  async acked(): Promise<void> {
    if (this.hold !== undefined) {
      const answer = this.core.settleAndTell(this.hold, ACK);
      const error = answer === undefined ? leaseLost() : await answer;
      if (error !== undefined) {
        throw error;
      }
    }
  }

  /** Failed: it comes again, after this many milliseconds or, without them, when the backoff of the group says. */
  nack(reason = "", delayMs?: number): void {
    this.settle({ is: "nack", delay: delayMs, reason });
  }

  /** It can never succeed: it becomes a dead letter. */
  reject(reason = ""): void {
    this.settle({ is: "reject", reason });
  }

  /** Still at work: the lease begins again, or lasts for this many milliseconds from now. */
  extend(timeMs?: number): void {
    const { hold } = this;
    if (hold !== undefined) {
      this.core.call((machine, now) => machine.table.extend(now, hold, timeMs));
    }
  }

  /** Drops it without a word: it makes room, and comes again once its lease has run out. */
  forget(): void {
    const { hold } = this;
    if (hold !== undefined) {
      this.core.call((machine, now) => machine.table.letGo(now, hold, machine.news));
    }
  }

  private settle(verdict: Verdict): void {
    if (this.hold !== undefined) {
      this.core.settle(this.hold, verdict);
    }
  }
}

/**
 * Events that came together.
 *
 * A subscription that reads a stream by itself says with `done` that they are done, which moves its place. Members of groups
 * settle each event instead.
 */
export class Batch {
  readonly kind = "events";
  readonly events: readonly Delivery[];
  /**
   * The resume token of the place behind it: for programs that keep it together with the results of their work. Empty for a
   * live subscription and for a member of a group.
   */
  readonly token: string;
  private readonly number: number;
  private isOver = false;

  /** @internal */
  constructor(
    incoming: Extract<Incoming, { is: "events" }>,
    private readonly core: Core,
    private readonly subscription: number,
    private readonly keeper: Keeper | undefined,
  ) {
    this.number = incoming.batch;
    this.token = incoming.token;
    this.events = incoming.events.map(({ event, sequence, copy }) => {
      // 0 is of events that nobody acknowledges.
      return new Delivery(event, core, copy === 0 ? undefined : { id: subscription, sequence, copy });
    });
  }

  /**
   * All of it is done: the place moves behind it, once all before it is done too. Resolves when the place is kept, where the
   * subscription has a store for it, and fails if that fails. Does nothing else for live subscriptions and members of groups.
   */
  async done(): Promise<void> {
    if (!this.isOver) {
      this.isOver = true;
      this.core.call((machine, now) => machine.table.finishBatch(now, this.subscription, this.number, machine.news));
    }
    await this.keeper?.keep(() => this.core.machine.table.get(this.subscription)?.done());
  }

  /** Drops it: the place stays before it for as long as the subscription lives, and the next run gets it again. */
  forget(): void {
    if (!this.isOver) {
      this.isOver = true;
      this.core.call((machine, now) => machine.table.dropBatch(now, this.subscription, this.number, machine.news));
    }
  }
}

/** Events that a subscription does not get. They would have come here. */
export interface Gap extends Missing {
  readonly kind: "gap";
}

/** It has all that the stream has. */
export interface CaughtUp {
  readonly kind: "caughtUp";
}

/** What comes for a subscription. */
export type Item = Batch | Gap | CaughtUp;

// The handle of a subscription: what comes, in order.

import type { Core } from "./core.js";
import { Batch, type Item } from "./delivery.js";
import { closed, failure, type SwitchyardError } from "./error.js";
import { Keeper } from "./keeper.js";
import type { Lost } from "./machine/hands.js";
import type { Incoming } from "./machine/incoming.js";
import type { Opened } from "./machine/row.js";
import { checked, type CheckedSpec, type Spec } from "./spec.js";

/** Sequences that an error names. */
const MOST_SEQUENCES_NAMED = 10;

/**
 * A subscription, over all sessions of its client. It ends with `close`, or when a `for await` over it is left.
 *
 * ```ts
 * for await (const item of hub.subscribe({ filters: ["rates.>"] })) {
 *   if (item.kind === "events") item.events.forEach((event) => console.log(event.topic, event.text));
 * }
 * ```
 */
export class Subscription implements AsyncIterable<Item> {
  private readonly core: Core;
  private readonly spec: CheckedSpec;
  private readonly keeper: Keeper | undefined;
  /** How the hub knows it, once its place was read. */
  private readonly begun: Promise<number>;
  private number: number | undefined;
  private isClosed = false;

  /** @internal */
  constructor(core: Core, spec: Spec) {
    core.machine.checkOpen();
    this.core = core;
    this.spec = checked(spec);
    this.keeper = spec.position === undefined ? undefined : new Keeper(spec.position);
    if (this.keeper === undefined) {
      this.number = core.subscribe(this.spec, undefined);
      this.begun = Promise.resolve(this.number);
    } else {
      this.begun = this.begin(this.keeper);
      // Whoever reads hears of it.
      this.begun.catch(() => undefined);
    }
  }

  private async begin(keeper: Keeper): Promise<number> {
    const token = await keeper.load();
    if (this.isClosed) {
      // It is nobody's.
      return 0;
    }
    this.number = this.core.subscribe(this.spec, token);
    return this.number;
  }

  /**
   * The next thing that comes; `undefined` when it is over, because it has all that it wanted, was closed, or its client is
   * drained. Fails when the subscription has ended and does not come back, or its place could not be kept.
   */
  async next(): Promise<Item | undefined> {
    const id = await this.begun;
    for (;;) {
      // The place may have moved without a batch, over events that match no filter.
      await this.keepPosition();
      const incoming = this.take(id);
      if (incoming !== undefined) {
        return this.item(id, incoming);
      }
      const end = this.isClosed ? { error: undefined } : this.core.machine.table.takeEnd(id);
      if (end?.error !== undefined) {
        throw end.error;
      }
      if (end !== undefined) {
        return undefined;
      }
      await this.core.changed(id);
    }
  }

  /** Gives what comes, until it is over. Whoever leaves the loop closes the subscription. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    try {
      for (let item = await this.next(); item !== undefined; item = await this.next()) {
        yield item;
      }
    } finally {
      this.close();
    }
  }

  private take(id: number): Incoming | undefined {
    if (this.isClosed) {
      return undefined;
    }
    const incoming = this.core.with((machine, now) => machine.table.take(now, id));
    if (incoming !== undefined) {
      // There is room, which the hub may hear of.
      this.core.ring();
    }
    return incoming;
  }

  private item(id: number, incoming: Incoming): Item {
    switch (incoming.is) {
      case "events":
        return new Batch(incoming, this.core, id, this.keeper);
      case "gap":
        return { kind: "gap", ...incoming.missing };
      default:
        return { kind: "caughtUp" };
    }
  }

  /**
   * Waits until the hub has opened it: for a live subscription nothing that is published later is missed. Fails when the hub
   * refuses that for good, or the client is over.
   */
  async ready(): Promise<void> {
    const id = await this.begun;
    for (;;) {
      // Whatever has become of it since, it was open.
      if (this.opened !== undefined) {
        return;
      }
      if (this.isClosed || this.core.machine.table.isOver(id)) {
        throw this.core.machine.table.takeEnd(id)?.error ?? closed();
      }
      await this.core.changed(id);
    }
  }

  /**
   * Waits until the hub has stored everything that was said so far of events of a group. Fails when leases were lost before
   * that: those events come again, to this member or another.
   */
  async settled(): Promise<void> {
    const id = await this.begun;
    const mark = this.core.machine.table.mark(id);
    for (;;) {
      const lost = this.core.machine.table.settled(id, mark);
      if (lost === undefined) {
        await this.core.changed(id);
      } else if (lost.count === 0) {
        return;
      } else {
        throw leasesLost(lost, this.spec.name);
      }
    }
  }

  /** Keeps the place, if it has a store and has moved since. */
  async keepPosition(): Promise<void> {
    await this.keeper?.keep(() => this.position);
  }

  /** Ends it. What it gave out can still be settled. */
  close(): void {
    if (this.isClosed) {
      return;
    }
    this.isClosed = true;
    const id = this.number;
    if (id !== undefined) {
      this.core.call((machine, now) => {
        machine.table.abandon(now, id, machine.news);
        // Whoever waits for what is next has waited long enough.
        machine.news.push({ of: "subscription", id });
      });
    }
  }

  /** Where it is, from when the hub opened it last; `undefined` if it never did. */
  get opened(): Opened | undefined {
    return this.row?.opened;
  }

  /** Whether it is open now. */
  get isOpen(): boolean {
    return this.row?.isOpen() ?? false;
  }

  /** Whether it has all that the stream has, as far as the hub has said. */
  get isCaughtUp(): boolean {
    return this.row?.hasCaughtUp() ?? false;
  }

  /** How many events of the stream it is behind, as the hub said last. Not for live subscriptions and members of groups. */
  get lag(): number {
    return this.row?.lag ?? 0;
  }

  /**
   * The resume token of its place: behind all that is done. `undefined` where nothing is done yet, for live subscriptions and
   * for members of groups.
   */
  get position(): string | undefined {
    return this.row?.done();
  }

  /** The id that the hub knows it by, in every session; 0 as long as its place is being read. */
  get id(): number {
    return this.number ?? 0;
  }

  private get row(): ReturnType<Core["machine"]["table"]["get"]> {
    return this.number === undefined ? undefined : this.core.machine.table.get(this.number);
  }
}

function leasesLost({ sequences, count }: Lost, place: string): SwitchyardError {
  const named = sequences.slice(0, MOST_SEQUENCES_NAMED);
  const more = count > named.length ? " and others" : "";
  const text =
    `${count} leases were lost before what was said of their events was stored; sequences ${named.join(", ")}${more} ` +
    "come again";
  return failure("leaseLost", "FAILED_PRECONDITION", "LEASE_EXPIRED", text).at(place);
}

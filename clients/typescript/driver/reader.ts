// One subscription: takes what the judge wants, keeps it, and says of it what the judge says.

import { setTimeout as sleep } from "node:timers/promises";

import type { Batch, Client, Delivery, Item, Spec, Subscription, SwitchyardError } from "../src/index.js";
import { FilePosition } from "../src/node.js";
import type { ReaderOrder, Subscribe, Take } from "./orders.js";
import { failureOf, say } from "./reports.js";

export class Reader {
  private readonly sub: string;
  private readonly isMember: boolean;
  private readonly subscription: Subscription;
  /** What the judge wants; how many events more. */
  private take: Take | undefined;
  private left = 0;
  /** Batches that are not done, */
  private batches: Batch[] = [];
  /** and events of a group that are not settled. */
  private held = new Map<bigint, Delivery>();
  private orders: ReaderOrder[] = [];
  private wake: () => void = () => undefined;
  private isOver = false;

  constructor(client: Client, order: Subscribe) {
    this.sub = order.sub;
    this.isMember = (order.group ?? "") !== "";
    this.subscription = client.subscribe(specOf(order));
    void this.run();
  }

  obey(order: ReaderOrder): void {
    this.orders.push(order);
    this.wake();
  }

  private async run(): Promise<void> {
    try {
      await this.subscription.ready();
    } catch (error) {
      say({ is: "ended", sub: this.sub, error: failureOf(error as SwitchyardError) });
      return;
    }
    say({ is: "subscribed", sub: this.sub });
    let item: Promise<Item | undefined> | undefined;
    for (;;) {
      for (let order = this.orders.shift(); order !== undefined; order = this.orders.shift()) {
        if (order.do === "unsubscribe") {
          this.subscription.close();
          return;
        }
        await this.follow(order);
      }
      const ordered = new Promise<"ordered">((resolve) => {
        this.wake = () => resolve("ordered");
      });
      if (!this.isOver && this.left > 0) {
        item ??= this.subscription.next();
      }
      try {
        const came = await (item === undefined ? ordered : Promise.race([ordered, item]));
        if (came !== "ordered") {
          item = undefined;
          await this.came(came);
        }
      } catch (error) {
        // What comes behind an error is the end without one, which is the same end.
        this.end(error as SwitchyardError);
        item = undefined;
      }
    }
  }

  private async follow(order: ReaderOrder): Promise<void> {
    switch (order.do) {
      case "take":
        this.take = order;
        this.left = order.count ?? Infinity;
        break;
      case "done":
        for (const batch of this.batches.splice(0)) {
          await this.done(batch);
        }
        break;
      case "ack":
        this.takeOut(order.sequences).forEach((event) => void this.ack(event, 0, 0));
        break;
      case "nack":
        this.takeOut(order.sequences).forEach((event) => event.nack("the judge said so", order.delay_ms ?? 0));
        break;
      case "reject":
        this.takeOut(order.sequences).forEach((event) => event.reject("the judge said so"));
        break;
      case "extend":
        this.chosen(order.sequences).forEach((event) => event.extend());
        break;
      default:
    }
  }

  /** The events in hand with these sequences; all, where there are none. */
  private chosen(sequences: readonly number[] = []): Delivery[] {
    const keys = sequences.length === 0 ? [...this.held.keys()] : sequences.map(BigInt);
    return keys.map((key) => this.held.get(key)).filter((event) => event !== undefined);
  }

  private takeOut(sequences?: readonly number[]): Delivery[] {
    const chosen = this.chosen(sequences);
    chosen.forEach((event) => this.held.delete(event.sequence));
    return chosen;
  }

  private async came(item: Item | undefined): Promise<void> {
    const { sub } = this;
    switch (item?.kind) {
      case "events":
        await this.events(item);
        break;
      case "gap":
        say({ is: "gap", sub, reason: item.reason, count: item.count, from: item.from, to: item.to });
        break;
      case "caughtUp":
        say({ is: "caught_up", sub });
        break;
      default:
        this.end(undefined);
    }
  }

  private end(error: SwitchyardError | undefined): void {
    this.isOver = true;
    say({ is: "ended", sub: this.sub, ...(error !== undefined && { error: failureOf(error) }) });
  }

  private async events(batch: Batch): Promise<void> {
    for (const { sequence, topic, text = "", attempt } of batch.events) {
      say({ is: "event", sub: this.sub, sequence, topic, text, attempt: this.isMember ? attempt : 0 });
    }
    this.left -= batch.events.length;
    const { then = "hold", work_ms = 0, extend_ms = 0 } = this.take ?? {};
    if (this.isMember) {
      for (const event of batch.events) {
        if (then === "ack") {
          void this.ack(event, work_ms, extend_ms);
        } else {
          this.held.set(event.sequence, event);
        }
      }
    } else if (then === "done") {
      if (work_ms > 0) {
        await sleep(work_ms);
      }
      await this.done(batch);
    } else {
      this.batches.push(batch);
    }
  }

  private async done(batch: Batch): Promise<void> {
    try {
      await batch.done();
      say({ is: "done", sub: this.sub, sequence: batch.events.at(-1)?.sequence ?? 0 });
    } catch (error) {
      say({ is: "failed", text: `done: ${String(error)}` });
    }
  }

  /** Acknowledges an event when the work is done, and says when the hub has stored that. */
  private async ack(event: Delivery, workMs: number, extendMs: number): Promise<void> {
    for (let left = workMs; left > 0; ) {
      const step = extendMs === 0 ? left : Math.min(extendMs, left);
      await sleep(step);
      left -= step;
      if (left > 0) {
        event.extend();
      }
    }
    const { sub } = this;
    const { sequence } = event;
    await event.acked().then(
      () => say({ is: "settled", sub, sequence }),
      (error: unknown) => say({ is: "settled", sub, sequence, error: failureOf(error as SwitchyardError) }),
    );
  }
}

function specOf({ stream = "", group = "", filters = [], from, window = 0, on_gap, position = "" }: Subscribe): Spec {
  return {
    ...(stream !== "" && { stream }),
    ...(group !== "" && { group }),
    filters,
    ...(stream !== "" && from === "earliest" && { from }),
    ...(window > 0 && { window }),
    // That of a stream is to fail by itself, and a member cannot.
    ...(stream !== "" && on_gap !== undefined && on_gap !== "fail" && { onGap: on_gap }),
    ...(position !== "" && { position: new FilePosition(position) }),
  };
}

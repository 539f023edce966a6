// Publishes what the judge says, in the order of its commands, and reports what became of each event.

import { type Client, type Published, type PublishOptions, SwitchyardError } from "../src/index.js";
import type { Publish } from "./orders.js";
import { say } from "./reports.js";

export class Publisher {
  private last: Promise<void> = Promise.resolve();

  constructor(private readonly client: Client) {}

  obey(order: Publish): void {
    this.last = this.last.then(() => this.publish(order));
  }

  private async publish(order: Publish): Promise<void> {
    const { topic, first, count, deadline_ms = 30_000, id = "", only_if_room = false } = order;
    const options: PublishOptions = {
      timeoutMs: deadline_ms,
      ...(typeof order.if_last_sequence === "number" && { ifLastSequence: order.if_last_sequence }),
    };
    for (let number = first; number < first + count; number += 1) {
      const event = { topic, text: String(number), ...(id !== "" && { id: `${id}-${number}` }) };
      if (only_if_room) {
        report(number, this.client.tryPublish(event));
        continue;
      }
      try {
        const { answer } = await this.client.enqueue(event, options);
        report(number, answer);
      } catch (error) {
        report(number, Promise.reject(error));
      }
    }
  }
}

function report(number: number, answer: Promise<Published>): void {
  answer.then(
    (published) => {
      const isStored = published.kind === "stored";
      const sequence = isStored ? published.sequence : 0;
      say({ is: "outcome", number, outcome: published.kind, sequence, duplicate: isStored && published.duplicate });
    },
    (error: unknown) => {
      const { kind, reason } = error as SwitchyardError;
      // Whoever is told that the client is closed has not published.
      say({ is: "outcome", number, outcome: kind === "unknown" ? "unknown" : "refused", reason });
    },
  );
}

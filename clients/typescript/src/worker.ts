// A member of a group that works by itself: it gives each event to a function, and acknowledges by how that ends.

import type { Delivery } from "./delivery.js";
import { invalid } from "./error.js";
import type { Received } from "./event.js";
import type { Subscription } from "./subscription.js";
import type { Spec } from "./spec.js";

/** The most events that one worker has at a time. */
const MOST_AT_ONCE = 10_000;
/** The ack deadline of a group whose hub has not said another one, in milliseconds. */
const ACK_DEADLINE = 30_000;
/** Leases are extended so many times within their deadline. */
const EXTENDS = 3;

/** Thrown by a handler: the event is to come again after this many milliseconds. */
export class RetryLater extends Error {
  override readonly name = "RetryLater";

  constructor(
    reason: string,
    readonly delayMs?: number,
  ) {
    super(reason);
  }
}

/** Thrown by a handler: the event can never succeed, and becomes a dead letter. */
export class Reject extends Error {
  override readonly name = "Reject";
}

/** What a worker does with an event. The event is done when it resolves, and comes again when it fails. */
export type Handler = (event: Received) => Promise<void> | void;

/** What a worker works on. */
export interface WorkerSpec extends Omit<Spec, "window" | "limit" | "position" | "doneWhenSent" | "overflow"> {
  readonly stream: string;
  readonly group: string;
  /** The most events at a time. No event is taken ahead of that. Default: 1. */
  readonly concurrency?: number;
}

/** Works until the client is drained and every handler is done. Fails when the subscription ends for good. */
export async function work(
  subscribe: (spec: Spec) => Subscription,
  { concurrency = 1, ...spec }: WorkerSpec,
  handler: Handler,
): Promise<void> {
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > MOST_AT_ONCE) {
    throw invalid("concurrency", `must be an integer from 1 to ${MOST_AT_ONCE}`);
  }
  const subscription = subscribe({ ...spec, window: concurrency });
  const running = new Map<Delivery, Promise<void>>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const extend = (): void => {
    for (const event of running.keys()) {
      event.extend();
    }
    timer = undefined;
    watch();
  };
  const watch = (): void => {
    if (timer === undefined && running.size > 0) {
      timer = setTimeout(extend, (subscription.opened?.ackDeadlineMs ?? ACK_DEADLINE) / EXTENDS);
    }
  };
  try {
    for (let item = await subscription.next(); item !== undefined; item = await subscription.next()) {
      for (const event of item.kind === "events" ? item.events : []) {
        const done = handle(event, handler).then(() => {
          running.delete(event);
        });
        running.set(event, done);
      }
      watch();
    }
  } finally {
    await Promise.all(running.values());
    clearTimeout(timer);
    subscription.close();
  }
}

/** Gives an event to the handler, and says what became of it. */
async function handle(event: Delivery, handler: Handler): Promise<void> {
  try {
    await handler(event);
    event.ack();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (error instanceof Reject) {
      event.reject(reason);
    } else {
      event.nack(reason, error instanceof RetryLater ? error.delayMs : undefined);
    }
  }
}

// One call of the application, and what is known of each of its events. Pure.

import { failure, ofStatus, type SwitchyardError } from "../error.js";
import type { Published } from "../state.js";
import { count, exact, type WirePrecondition, type WirePublishResult } from "../wire.js";
import type { Outcome } from "./news.js";

/** A number of events, and their bytes. */
export interface Amount {
  readonly events: number;
  readonly bytes: number;
}

/** An event that was encoded once. */
export interface Encoded {
  /** As it is written. */
  readonly json: string;
  /** How many bytes that is, with the comma behind it. */
  readonly bytes: number;
  /** All that a stream knows it by, as an event of its own. */
  readonly key: string;
}

/** One call of the application. */
export interface NewPublish {
  readonly events: readonly Encoded[];
  readonly precondition: WirePrecondition | undefined;
  /** When whoever called is told, whatever is known then. */
  readonly deadline: number;
  /** What belongs to no stream may be written again too. */
  readonly retryLive: boolean;
}

export function amountOf(events: readonly Encoded[]): Amount {
  return { events: events.length, bytes: events.reduce((sum, event) => sum + event.bytes, 0) };
}

/**
 * What is known of the stream of an event: nothing; the hub is asked; there is one, and it stores the event once, however
 * often it is written.
 */
type Known = "nothing" | "asked" | "inStream";

interface Item {
  readonly event: Encoded;
  known: Known;
  result: Outcome | undefined;
}

/** What is left of one call. */
export class Entry {
  readonly amount: Amount;
  readonly precondition: WirePrecondition | undefined;
  readonly deadline: number;
  /** It is written in this session, and not answered. */
  isInFlight = false;
  /** Whoever called was told at the deadline, and hears nothing more. */
  isTold = false;
  private readonly items: Item[];
  private readonly retryLive: boolean;
  /** It is written alone: the hub refused it together with others. */
  private wasRefused = false;
  /** A session was lost before it was answered. */
  private isLost = false;

  constructor(call: NewPublish) {
    this.amount = amountOf(call.events);
    this.items = call.events.map((event) => ({ event, known: "nothing", result: undefined }));
    this.precondition = call.precondition;
    this.deadline = call.deadline;
    this.retryLive = call.retryLive;
  }

  /** It goes alone, or with others. */
  isAlone(): boolean {
    return this.wasRefused || this.precondition !== undefined;
  }

  setAlone(): void {
    this.wasRefused = true;
  }

  keyOf(at: number): string {
    return this.item(at).event.key;
  }

  /** The events of which nothing is known. */
  pending(): Encoded[] {
    return this.items.filter((item) => item.result === undefined).map((item) => item.event);
  }

  isComplete(): boolean {
    return this.items.every((item) => item.result !== undefined);
  }

  /** Some of it may have been published, and nobody knows. */
  isDoubtful(): boolean {
    return this.isLost || this.isInFlight;
  }

  /**
   * The next event of which the hub is to be asked before it is written again. Not of one with a precondition: only a stream
   * takes that.
   */
  question(): number | undefined {
    if (!this.isLost || this.retryLive || this.precondition !== undefined) {
      return undefined;
    }
    const at = this.items.findIndex((item) => item.result === undefined && item.known === "nothing");
    return at < 0 ? undefined : at;
  }

  know(at: number, known: Known): void {
    this.item(at).known = known;
  }

  set(at: number, result: Outcome): void {
    this.item(at).result = result;
  }

  private item(at: number): Item {
    return this.items[at] as Item;
  }

  /** The session is lost, and with it every answer to come. */
  sessionLost(): void {
    this.isLost = true;
    this.isInFlight = false;
    for (const item of this.items) {
      if (item.known === "asked") {
        item.known = "nothing";
      }
    }
  }

  /**
   * Takes the results of what was pending. How long the hub asks to wait, in milliseconds, if some of it is to be written
   * again.
   */
  takeResults(next: () => WirePublishResult | undefined, renews: boolean): number | undefined {
    let pause: number | undefined;
    for (const item of this.items) {
      if (item.result !== undefined) {
        continue;
      }
      const result = outcomeOf(next());
      if (isFailure(result) && isTransient(result, renews)) {
        if (result.code === "UNAVAILABLE") {
          // Nothing but the store of a stream is ever unavailable.
          item.known = "inStream";
        }
        pause = Math.max(pause ?? 0, result.retryAfterMs ?? 0);
      } else {
        item.result = result;
      }
    }
    return pause;
  }

  /** Everything that is pending has failed. */
  fill(error: SwitchyardError): void {
    for (const item of this.items) {
      item.result ??= error;
    }
  }

  /** The client is over. */
  giveUp(error: SwitchyardError): void {
    this.fill(error.ofKind(this.isDoubtful() ? "unknown" : error.kind));
  }

  /** What whoever called is told when the deadline has passed. */
  resultsAtDeadline(): Outcome[] {
    const error = this.isDoubtful()
      ? deadlinePassed("unknown", "the deadline has passed, and the hub has not said what became of the event")
      : deadlinePassed("refused", "the deadline has passed before the event could be sent: it was not published");
    return this.items.map((item) => item.result ?? error);
  }

  results(): Outcome[] {
    return this.items.map((item) => item.result ?? noAnswer());
  }

  /** Why a hub with these limits cannot take it, if so. */
  excess(mostEvents: number, mostBytes: number): SwitchyardError | undefined {
    const { events, bytes } = amountOf(this.pending());
    if (events <= mostEvents && bytes <= mostBytes) {
      return undefined;
    }
    const text =
      `${events} events of ${bytes} bytes are too much for one publish: this hub takes ${mostEvents} of ` +
      `${mostBytes} bytes in JSON`;
    return failure("refused", "INVALID_ARGUMENT", "EVENT_TOO_LARGE", text);
  }
}

export function isFailure(outcome: Outcome): outcome is SwitchyardError {
  return outcome instanceof Error;
}

/** What the hub says of an event. */
export function outcomeOf(result: WirePublishResult | undefined): Outcome {
  if (result === undefined) {
    return noAnswer();
  }
  return result.status === undefined ? publishedOf(result) : ofStatus("refused", result.status);
}

function publishedOf(result: WirePublishResult): Published {
  const matched = count(result.matched);
  if (result.stream === undefined || result.stream === "") {
    return { kind: "live", matched };
  }
  return {
    kind: "stored",
    stream: result.stream,
    sequence: exact(result.sequence),
    epoch: exact(result.epoch),
    duplicate: result.duplicate === true,
    durability: result.durability ?? "DURABILITY_UNSPECIFIED",
    matched,
  };
}

/** Whether the same may be taken soon, on this hub or another. */
export function isTransient(error: SwitchyardError, renews: boolean): boolean {
  return error.code === "UNAVAILABLE" || (renews && error.code === "UNAUTHENTICATED");
}

/** No answer came, against the contract. */
function noAnswer(): SwitchyardError {
  return failure("unknown", "UNKNOWN", "NO_ANSWER", "the hub did not say what became of the event");
}

export function deadlinePassed(kind: "refused" | "unknown", text: string): SwitchyardError {
  return failure(kind, "DEADLINE_EXCEEDED", "DEADLINE_PASSED", text);
}

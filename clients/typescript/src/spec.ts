// What a user asks a subscription for: live events or those of a stream, from where, and how many at a time. Pure.

import { invalid } from "./error.js";
import type { Size } from "./machine/credit.js";
import type { PositionStore } from "./position.js";
import { utf8Length, type WireSpec, type WireStart } from "./wire.js";

/** What a subscription holds at most, unless told otherwise. One event may be larger than the bytes. */
const WINDOW: Size = { events: 256, bytes: 4 * 1024 * 1024 };
/** No subscription that a hub takes is larger, in bytes: 256 filters of 256 bytes, and the rest. */
const MAX_SPEC_BYTES = 128 * 1024;
/** The limits of what has a limit in the contract. */
const MOST_BATCH = 10_000;

/**
 * Where in a stream a subscription starts: with what is `"new"`, with the `"earliest"` event, or with the `"lastPerTopic"`;
 * strictly after a sequence; with the first event that was stored at a time or later; or behind a resume token. A group that
 * exists goes on where it is, whatever its members say.
 */
export type Start =
  | "new"
  | "earliest"
  | "lastPerTopic"
  | { readonly after: bigint | number }
  | { readonly at: Date }
  | { readonly token: string };

/** What a subscription asks for. Without a stream it is live: it gets what is published while it is open. */
export interface Spec {
  /** The stream to read. Without it the subscription is live, and needs filters. */
  readonly stream?: string;
  /** Patterns over topics: `*` is one token, a final `>` is one or more. */
  readonly filters?: readonly string[];
  /** Shares the events with the other members of this group. On a stream each event is to be acknowledged. */
  readonly group?: string;
  /** As a member of a group on a stream: an event is done as soon as the hub has sent it. */
  readonly doneWhenSent?: boolean;
  /** Where in the stream to start, if there is no position to go on from. Default: `"new"`. */
  readonly from?: Start;
  /**
   * What happens when the stream no longer has the events where this wants to go on: it fails, or gets a gap and goes on with
   * the earliest event or with what is new. Default: `"fail"`, and `"earliest"` for a member of a group.
   */
  readonly onGap?: "fail" | "earliest" | "latest";
  /** What the hub does with live events for a client that does not keep up. Default: `"dropOldest"`. */
  readonly overflow?: "dropOldest" | "conflate" | "end";
  /** Where the place in a stream is kept between two runs of the program. Not for members of groups. */
  readonly position?: PositionStore;
  /**
   * The most events to hold: those that were not taken or, for a member of a group, that were not settled. Default: 256.
   */
  readonly window?: number;
  /** The same in bytes. One event may be larger. Default: 4 MiB. */
  readonly windowBytes?: number;
  /** The most events in one batch. Default: about 64 KiB of them. */
  readonly maxBatch?: number;
  /** Ends after this many events. Not for members that acknowledge. */
  readonly limit?: number;
}

/** A spec that was checked, as the machine has it. */
export interface CheckedSpec {
  /** Without its credit, which the window makes. */
  readonly wire: WireSpec;
  readonly window: Size;
  /** Its events are acknowledged. */
  readonly acknowledges: boolean;
  /** It reads a stream by itself, so that its place is its own. */
  readonly hasPlace: boolean;
  /** Its place is kept, so that it matters which batches are done. */
  readonly keepsPlace: boolean;
  /** It starts with what is published from now on. */
  readonly startsNew: boolean;
  /** What it is, in the words of an error. */
  readonly name: string;
}

const OVERFLOWS = {
  dropOldest: "OVERFLOW_POLICY_DROP_OLDEST",
  conflate: "OVERFLOW_POLICY_CONFLATE",
  end: "OVERFLOW_POLICY_END",
};
const GAP_POLICIES = { fail: "GAP_POLICY_FAIL", earliest: "GAP_POLICY_EARLIEST", latest: "GAP_POLICY_LATEST" };
const PRESETS = {
  new: "START_PRESET_NEW",
  earliest: "START_PRESET_EARLIEST",
  lastPerTopic: "START_PRESET_LAST_PER_TOPIC",
};

/** Finds what can never work here, before a hub has to. What only the hub can judge is its to refuse. */
export function checked(spec: Spec): CheckedSpec {
  const window = { events: spec.window ?? WINDOW.events, bytes: spec.windowBytes ?? WINDOW.bytes };
  positive("window", window.events);
  positive("windowBytes", window.bytes);
  const wire = wireOf(spec);
  const acknowledges = wire.ackMode === "ACK_MODE_EXPLICIT";
  const hasPlace = wire.stream !== undefined && wire.group === undefined;
  if (utf8Length(JSON.stringify(wire)) > MAX_SPEC_BYTES) {
    throw invalid("filters", `have more than ${MAX_SPEC_BYTES} bytes`);
  }
  if (spec.position !== undefined && !hasPlace) {
    throw invalid("position", "is only for a subscription that reads a stream by itself");
  }
  // The hub would count events that come again.
  if (acknowledges && spec.limit !== undefined) {
    throw invalid("limit", "is not for members that acknowledge: they stop taking events instead");
  }
  const startsNew = spec.from === undefined || spec.from === "new";
  const keepsPlace = spec.position !== undefined;
  return { wire, window, acknowledges, hasPlace, keepsPlace, startsNew, name: nameOf(wire) };
}

function positive(field: string, value: number, most = Number.MAX_SAFE_INTEGER): void {
  if (!Number.isInteger(value) || value < 1 || value > most) {
    const range = most === Number.MAX_SAFE_INTEGER ? "a positive integer" : `an integer from 1 to ${most}`;
    throw invalid(field, `must be ${range}`);
  }
}

function wireOf(spec: Spec): WireSpec {
  const wire: WireSpec = {};
  if (spec.filters !== undefined && spec.filters.length > 0) {
    wire.filters = [...spec.filters];
  }
  if (spec.stream !== undefined && spec.stream !== "") {
    wire.stream = spec.stream;
  }
  if (spec.group !== undefined && spec.group !== "") {
    wire.group = spec.group;
    if (wire.stream !== undefined && spec.doneWhenSent !== true) {
      wire.ackMode = "ACK_MODE_EXPLICIT";
    }
  }
  if (spec.from !== undefined) {
    wire.start = startOf(spec.from);
  }
  if (spec.overflow !== undefined) {
    wire.overflow = OVERFLOWS[spec.overflow];
  }
  if (spec.onGap !== undefined) {
    wire.onGap = GAP_POLICIES[spec.onGap];
  }
  if (spec.maxBatch !== undefined) {
    positive("maxBatch", spec.maxBatch, MOST_BATCH);
    wire.maxBatch = spec.maxBatch;
  }
  if (spec.limit !== undefined) {
    positive("limit", spec.limit);
    wire.maxEvents = String(spec.limit);
  }
  return wire;
}

function startOf(start: Start): WireStart {
  if (typeof start === "string") {
    return { preset: PRESETS[start] };
  }
  if ("after" in start) {
    return { afterSequence: String(start.after) };
  }
  return "at" in start ? { atTime: start.at.toISOString() } : { resumeToken: start.token };
}

function nameOf({ stream, group, filters = [] }: WireSpec): string {
  const of = group === undefined ? "" : `group ${group} of `;
  if (stream !== undefined) {
    return `${of}stream ${stream}`;
  }
  const more = filters.length > 1 ? ` and ${filters.length - 1} more` : "";
  return `${of}live ${filters[0] ?? "events"}${more}`;
}

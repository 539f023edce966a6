// Events: how they are made, and how they are read. Pure.

import { invalid } from "./error.js";
import type { Encoded } from "./machine/entry.js";
import { duration, exact, utf8Length, type WireEvent, type WireReceived } from "./wire.js";

/** An event to publish. It has at most one of `text`, `data` and `json`. */
export interface NewEvent {
  /** The topic it is published to, such as `orders.eu.created`. */
  readonly topic: string;
  /** Its payload as a text, */
  readonly text?: string;
  /** as bytes, */
  readonly data?: Uint8Array;
  /** or as a value in JSON. */
  readonly json?: unknown;
  /** An id of its own. Otherwise the client makes one, which the event keeps however often it is sent. */
  readonly id?: string;
  /** Where it is from, instead of the name of the client. A stream finds duplicates by topic, source and id. */
  readonly source?: string;
  /** What kind of thing happened, such as `com.example.invoice.paid`. */
  readonly type?: string;
  /** An ordering key: a group hands events of one key to its members one after another. */
  readonly key?: string;
  /** The media type of its payload. */
  readonly contentType?: string;
  /** When it happened. */
  readonly time?: Date;
  /** How long its stream keeps it, in milliseconds. */
  readonly ttlMs?: number;
  /** Free names and values. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** Adds what carries a trace, `traceparent` and `tracestate`, to the attributes of an event that is published. */
export type TraceContext = (attributes: Record<string, string>) => void;

/** What an event gets from its client. */
export interface Sender {
  /** The source of events whose id the client makes. */
  readonly name: string;
  readonly newId: () => string;
  readonly traceContext: TraceContext | undefined;
}

/** Encodes an event, once, with all that it is known again by. */
export function encode(event: NewEvent, sender: Sender): Encoded {
  const wire = wireEvent(event);
  if (wire.id === undefined) {
    wire.id = sender.newId();
    if (wire.source === undefined && sender.name !== "") {
      wire.source = sender.name;
    }
  }
  if (sender.traceContext !== undefined) {
    const attributes = { ...wire.attributes };
    sender.traceContext(attributes);
    if (Object.keys(attributes).length > 0) {
      wire.attributes = attributes;
    }
  }
  const { id, topic, source } = wire;
  const json = JSON.stringify(wire);
  return { json, bytes: utf8Length(json) + 1, key: JSON.stringify({ id, topic, source }) };
}

function wireEvent(event: NewEvent): WireEvent {
  const payloads = [event.text, event.data, event.json].filter((payload) => payload !== undefined);
  if (payloads.length > 1) {
    throw invalid("event", "has more than one of text, data and json");
  }
  const wire: WireEvent = { topic: event.topic };
  for (const name of ["id", "source", "type", "key", "contentType"] as const) {
    const value = event[name];
    if (value !== undefined && value !== "") {
      wire[name] = value;
    }
  }
  if (event.time !== undefined) {
    wire.time = event.time.toISOString();
  }
  if (event.ttlMs !== undefined) {
    wire.ttl = duration(event.ttlMs);
  }
  if (event.attributes !== undefined) {
    wire.attributes = { ...event.attributes };
  }
  if (event.text !== undefined) {
    wire.text = event.text;
  } else if (event.data !== undefined) {
    wire.data = toBase64(event.data);
  } else if (event.json !== undefined) {
    wire.text = JSON.stringify(event.json);
    wire.contentType ??= "application/json";
  }
  return wire;
}

/** An event that came. */
export class Received {
  /** The event as the contract has it in JSON. */
  readonly wire: WireReceived;
  private readonly event: WireEvent;

  constructor(wire: WireReceived) {
    this.wire = wire;
    this.event = wire.event ?? {};
  }

  get topic(): string {
    return this.event.topic ?? "";
  }

  get id(): string {
    return this.event.id ?? "";
  }

  get source(): string {
    return this.event.source ?? "";
  }

  get type(): string {
    return this.event.type ?? "";
  }

  /** Its ordering key. */
  get key(): string {
    return this.event.key ?? "";
  }

  get contentType(): string {
    return this.event.contentType ?? "";
  }

  /** When it happened, as its publisher says. */
  get time(): Date | undefined {
    return dateOf(this.event.time);
  }

  get attributes(): Readonly<Record<string, string>> {
    return this.event.attributes ?? {};
  }

  /** Its payload, if that is a text. */
  get text(): string | undefined {
    return this.event.text;
  }

  /** The bytes of its payload, whether that is a text or not; none when there is no payload. */
  get data(): Uint8Array {
    const { text, data } = this.event;
    return text !== undefined ? new TextEncoder().encode(text) : fromBase64(data ?? "");
  }

  /** Its payload as a value in JSON. Throws where it is none. */
  json<T = unknown>(): T {
    return JSON.parse(this.event.text ?? new TextDecoder().decode(this.data)) as T;
  }

  /** The stream it comes from; empty when it was live. */
  get stream(): string {
    return this.wire.stream ?? "";
  }

  /** Its sequence in that stream; 0 when it was live. */
  get sequence(): bigint {
    return exact(this.wire.sequence);
  }

  /** When the stream stored it. */
  get appendTime(): Date | undefined {
    return dateOf(this.wire.appendTime);
  }

  /** Which attempt of its group this is: higher than 1 only after one that failed. 1 outside of groups. */
  get attempt(): number {
    return this.wire.attempt ?? 0;
  }

  /** Whether the hub knows that a member of its group was sent it before: it may have been worked on. */
  get isRedelivered(): boolean {
    return this.wire.redelivered === true;
  }

  /** Why the last attempt failed. */
  get lastFailure(): string {
    return this.wire.lastFailure ?? "";
  }
}

function dateOf(time: string | undefined): Date | undefined {
  return time === undefined ? undefined : new Date(time);
}

/** How many bytes become text at a time: more arguments than a call may have are not allowed. */
const CHUNK = 8192;

/** Bytes as base64, which both browsers and Node have only for texts of one byte a character. */
export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  }
  return btoa(text);
}

/** A text as base64 for URLs and tokens, without padding. */
export function toBase64Url(text: string): string {
  return toBase64(new TextEncoder().encode(text)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

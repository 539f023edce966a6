// What events cost of the credit: all bytes that each takes in its `events` frame, with its tag and length, where the frame is
// protobuf. Pure.
//
// In JSON they cannot be measured, so they are counted from the fields. That is exact unless the event has fields that this
// client does not know, or was encoded in an unusual way. What the hub says that a frame costs holds in any case.

import { count, utf8Length, type WireEvent, type WireEvents, type WireReceived } from "./wire.js";

/** What each event of a frame costs. */
export function sizesOf(frame: WireEvents): number[] {
  const sizes = (frame.events ?? []).map(sizeOf);
  const told = count(frame.creditBytes);
  if (told > 0 && sizes.length > 0) {
    const counted = sizes.reduce((sum, size) => sum + size, 0);
    // Whichever event it is that has more than is known here.
    sizes[sizes.length - 1] = Math.max((sizes.at(-1) as number) + told - counted, 0);
  }
  return sizes;
}

function sizeOf(received: WireReceived): number {
  const body =
    field(eventSize(received.event ?? {})) +
    textField(received.stream) +
    integerField(received.sequence) +
    timeField(received.appendTime) +
    integerField(received.attempt) +
    textField(received.lastFailure) +
    (received.redelivered === true ? 2 : 0);
  return field(body);
}

function eventSize(event: WireEvent): number {
  let size =
    textField(event.id) +
    textField(event.topic) +
    textField(event.type) +
    textField(event.source) +
    timeField(event.time) +
    textField(event.key) +
    textField(event.contentType) +
    durationField(event.ttl);
  for (const name in event.attributes) {
    // Most encoders write both, even if they are empty.
    size += field(field(utf8Length(name)) + field(utf8Length(event.attributes[name] ?? "")));
  }
  if (event.text !== undefined) {
    size += field(utf8Length(event.text));
  } else if (event.data !== undefined) {
    size += field(base64Length(event.data));
  }
  return size;
}

/** A field with a tag of one byte, a length, and as many bytes. */
function field(length: number): number {
  return 1 + varint(length) + length;
}

function textField(text: string | undefined): number {
  return text === undefined || text === "" ? 0 : field(utf8Length(text));
}

function integerField(value: string | number | undefined): number {
  const number = Number(value ?? 0);
  return number === 0 ? 0 : 1 + varint(number);
}

function timeField(time: string | undefined): number {
  if (time === undefined) {
    return 0;
  }
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? "";
  const seconds = Math.floor(Date.parse(time) / 1000);
  return field(integerField(seconds) + integerField(Number(fraction.padEnd(9, "0"))));
}

function durationField(duration: string | undefined): number {
  if (duration === undefined) {
    return 0;
  }
  const [seconds = "0", fraction = ""] = duration.slice(0, -1).split(".");
  return field(integerField(seconds) + integerField(Number(fraction.padEnd(9, "0"))));
}

function base64Length(text: string): number {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  return Math.floor((text.length * 3) / 4) - padding;
}

/** How many bytes an integer takes. */
function varint(value: number): number {
  if (value < 0) {
    return 10;
  }
  let bytes = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) {
    bytes += 1;
  }
  return bytes;
}

// What goes over the wire: forms of proto3 JSON, sizes, ids, errors, and the reasons of the contract.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { ofStatus } from "../src/error.js";
import { encode, Received, toBase64Url } from "../src/event.js";
import { errorOfAnswer } from "../src/http.js";
import { newId, uuid7 } from "../src/ids.js";
import { codeOfReason, REASONS } from "../src/reasons.js";
import { sizesOf } from "../src/size.js";
import { checked, type Spec } from "../src/spec.js";
import { lossOf, urlOf } from "../src/websocket.js";
import { commandFrame, duration, millis, publishFrame, utf8Length } from "../src/wire.js";
import { CODE, status } from "./world.js";

const sender = { name: "me", newId: () => "made", traceContext: undefined };

test("durations are what proto3 JSON has", () => {
  for (const [text, value] of [
    ["0s", 0],
    ["1s", 1000],
    ["1.500s", 1500],
    ["0.050s", 50],
    ["86400s", 86_400_000],
  ] as const) {
    assert.deepEqual([duration(value), millis(text)], [text, value]);
  }
  assert.deepEqual([millis("0.000250s"), millis("3"), millis(undefined)], [0.25, undefined, undefined]);
});

test("a publish is put together from its events", () => {
  const frame = publishFrame(17, ['{"topic":"a"}', '{"topic":"b"}'], { lastSequence: "7" });
  assert.deepEqual(JSON.parse(frame), {
    requestId: "17",
    publish: { events: [{ topic: "a" }, { topic: "b" }], precondition: { lastSequence: "7" } },
  });
  const command = commandFrame(3, { unsubscribe: { subscriptionId: 1 } });
  assert.equal(command, '{"requestId":"3","unsubscribe":{"subscriptionId":1}}');
});

test("texts are measured in UTF-8", () => {
  for (const text of ["", "abc", "äöü", "€", "😀", "a😀b€", "\ud800", "\udc00x", "\ud800\ud800"]) {
    assert.equal(utf8Length(text), Buffer.byteLength(text), JSON.stringify(text));
  }
});

test("events are measured as the hub measures them in protobuf", () => {
  // As protobuf encoders make them: see the bytes of each field.
  const empty = { event: {} };
  assert.deepEqual(sizesOf({ events: [empty] }), [2 + 2]);
  const event = { id: "i", topic: "s.a", text: "x" };
  // 0a 01 69 12 03 73 2e 61 52 01 78
  const inner = 3 + 5 + 3;
  assert.deepEqual(sizesOf({ events: [{ event, stream: "s", sequence: "300", attempt: 1 }] }), [2 + (2 + inner) + 3 + 3 + 2]);
  const time = "2026-12-01T00:00:00.5Z";
  // Seconds of five bytes, nanoseconds of five.
  assert.deepEqual(sizesOf({ events: [{ event: {}, appendTime: time }] }), [2 + 2 + (2 + 6 + 6)]);
  const full = { attributes: { a: "b", empty: "" }, data: "AAECAw==", ttl: "3s" };
  assert.deepEqual(sizesOf({ events: [{ event: full }] }), [2 + 2 + (2 + 6) + (2 + 9) + (2 + 4) + (2 + 2)]);
  const long = { event: { text: "y".repeat(300) }, redelivered: true, lastFailure: "z" };
  assert.deepEqual(sizesOf({ events: [long] }), [1 + 2 + (1 + 2 + (1 + 2 + 300)) + 3 + 2]);
  assert.deepEqual(sizesOf({ events: [empty, empty], creditBytes: "20" }), [4, 16], "what the hub says counts");
});

test("an event has its id and source before it is written, and keeps them", () => {
  const made = JSON.parse(encode({ topic: "a" }, sender).json) as object;
  assert.deepEqual(made, { topic: "a", id: "made", source: "me" });
  const own = encode({ topic: "a", id: "i", json: { n: 1 } }, sender);
  assert.deepEqual(JSON.parse(own.json), { topic: "a", id: "i", text: '{"n":1}', contentType: "application/json" });
  assert.deepEqual(JSON.parse(own.key), { id: "i", topic: "a" });
  assert.equal(own.bytes, own.json.length + 1);
  const traced = encode({ topic: "a" }, { ...sender, traceContext: (into) => (into["traceparent"] = "t") });
  assert.deepEqual((JSON.parse(traced.json) as { attributes: object }).attributes, { traceparent: "t" });
  assert.throws(() => encode({ topic: "a", text: "x", json: 1 }, sender), { kind: "invalid" });
});

test("what is put into an event is in it when it comes", () => {
  const data = Uint8Array.from({ length: 20_000 }, (_, at) => at % 256);
  const time = new Date(1_700_000_000_123);
  const event = { topic: "a.b", data, key: "k", type: "t", contentType: "c", time, ttlMs: 1500, attributes: { n: "v" } };
  const wire = JSON.parse(encode(event, sender).json) as object;
  const received = new Received({ event: wire, sequence: "9007199254740993", stream: "s", attempt: 2 });
  assert.deepEqual([received.topic, received.key, received.type, received.contentType], ["a.b", "k", "t", "c"]);
  assert.deepEqual(received.data, data);
  assert.deepEqual([received.time, received.text, received.attributes], [time, undefined, { n: "v" }]);
  assert.deepEqual([received.sequence, received.attempt, received.isRedelivered], [9_007_199_254_740_993n, 2, false]);
  assert.deepEqual(new Received({ event: { text: '{"n":1}' } }).json(), { n: 1 });
  assert.deepEqual(new Received({}).data, new Uint8Array());
});

test("an id is a UUID of version 7 that begins with the time, and no two are the same", () => {
  // An example of the standard: 2022-02-22, 19:22:22 UTC.
  const id = uuid7(1_645_557_742_000, new Uint8Array(16).fill(0xff));
  assert.equal(id, "017f22e2-79b0-7fff-bfff-ffffffffffff");
  const ids = new Set(Array.from({ length: 10_000 }, newId));
  assert.equal(ids.size, 10_000);
});

test("what the hub says of an error is kept", () => {
  const told = status(CODE.RESOURCE_EXHAUSTED, "STREAM_FULL", 1500);
  told.message = "no room";
  told.details?.push({ "@type": "type.googleapis.com/google.rpc.BadRequest", fieldViolations: [{ field: "events[3]" }] });
  const error = ofStatus("refused", told);
  assert.deepEqual([error.kind, error.code, error.reason], ["refused", "RESOURCE_EXHAUSTED", "STREAM_FULL"]);
  assert.deepEqual([error.field, error.retryable, error.retryAfterMs], ["events[3]", true, 1500]);
  const there = error.at("stream orders, http://hub:1");
  const expected = "stream orders, http://hub:1: RESOURCE_EXHAUSTED STREAM_FULL: no room (field events[3])";
  assert.equal(there.message, expected);
  assert.equal(there.at("elsewhere").message, expected, "the first place is the right one");
  assert.equal(ofStatus("lost", { code: CODE.UNAVAILABLE }).retryable, true);
  assert.equal(ofStatus("lost", { code: CODE.INTERNAL, message: "x" }).message, "INTERNAL: x");
});

test("the reasons are those of the contract, and so are their codes", () => {
  const proto = readFileSync(new URL("../../../../proto/switchyard/v1/reason.proto", import.meta.url), "utf8");
  const found = [...proto.matchAll(/\/\/ (\w+): [^=]*?END_REASON_(\w+) = (\d+);/g)];
  assert(found.length > 35);
  for (const [, code, name, number] of found) {
    assert.equal(REASONS[Number(number)], name);
    assert.equal(codeOfReason(Number(number)), code);
  }
  assert.equal(Object.keys(REASONS).length, found.length);
});

test("a close code says what it can, where no frame has said more", () => {
  const told = (code: number, reason = ""): unknown[] => {
    const loss = lossOf(code, reason);
    return typeof loss === "string" ? [loss] : [loss.failed.code, loss.failed.reason];
  };
  assert.deepEqual(told(1000), ["ended"]);
  assert.deepEqual(told(1001), ["UNAVAILABLE", "DRAINING"]);
  assert.deepEqual(told(1006), ["UNAVAILABLE", ""]);
  assert.deepEqual(told(1008), ["UNAVAILABLE", ""], "nothing is for ever of which nobody has said why");
  assert.deepEqual(told(1008, "CREDENTIAL_EXPIRED"), ["UNAUTHENTICATED", "CREDENTIAL_EXPIRED"]);
  assert.deepEqual(told(1013, "TOO_MANY_SESSIONS"), ["RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS"]);
  assert.deepEqual(told(4081), ["ABORTED", "SESSION_TERMINATED"]);
  assert.deepEqual(told(4999), ["UNAVAILABLE", ""]);
});

test("only the hub says what is for ever when a handshake fails", () => {
  const denied = errorOfAnswer(403, JSON.stringify(status(CODE.PERMISSION_DENIED, "ACTION_DENIED")));
  assert.deepEqual([denied.code, denied.reason], ["PERMISSION_DENIED", "ACTION_DENIED"]);
  for (const body of ["", "<html>", "null", "{}", '{"code":"x"}', "[]"]) {
    assert.deepEqual([errorOfAnswer(403, body).code, errorOfAnswer(403, body).reason], ["UNAVAILABLE", "NOT_CONNECTED"]);
  }
});

test("an address leads to the path of sessions, and a token to a subprotocol", () => {
  assert.equal(urlOf("http://hub:1"), "ws://hub:1/v1/ws");
  assert.equal(urlOf("https://hub.example/events/"), "wss://hub.example/events/v1/ws");
  assert.equal(toBase64Url("a.b~?>ü"), Buffer.from("a.b~?>ü").toString("base64url"));
});

test("a spec becomes what the contract has, and what can never work is refused before it is sent", () => {
  const position = { load: () => Promise.resolve(undefined), keep: () => Promise.resolve() };
  const at = new Date(0);
  assert.deepEqual(checked({ stream: "s", group: "g", from: { at }, onGap: "earliest", maxBatch: 3 }).wire, {
    stream: "s",
    group: "g",
    ackMode: "ACK_MODE_EXPLICIT",
    start: { atTime: "1970-01-01T00:00:00.000Z" },
    onGap: "GAP_POLICY_EARLIEST",
    maxBatch: 3,
  });
  const live = checked({ filters: ["a", "b"], overflow: "conflate", limit: 5, group: "g" });
  assert.deepEqual(live.wire, { filters: ["a", "b"], overflow: "OVERFLOW_POLICY_CONFLATE", maxEvents: "5", group: "g" });
  assert.equal(live.name, "group g of live a and 1 more");
  assert.deepEqual(checked({ stream: "s", from: { after: 7n } }).wire.start, { afterSequence: "7" });
  checked({ stream: "s", window: 1, windowBytes: 1, position });
  const bad: [Spec, string][] = [
    [{ stream: "s", window: 0 }, "window"],
    [{ stream: "s", windowBytes: 0.5 }, "windowBytes"],
    [{ stream: "s", group: "g", position }, "position"],
    [{ filters: ["a"], position }, "position"],
    [{ stream: "s", group: "g", limit: 1 }, "limit"],
    [{ stream: "s", maxBatch: 10_001 }, "maxBatch"],
    [{ filters: Array.from({ length: 1024 }, () => "x".repeat(256)) }, "filters"],
  ];
  for (const [spec, field] of bad) {
    assert.throws(() => checked(spec), { kind: "invalid", field });
  }
});

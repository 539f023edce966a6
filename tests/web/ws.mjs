// A session as the package `ws` speaks it, unmodified: in JSON and in protobuf, with its compression offered, in frames that
// are split, and closed from both sides. Nothing is generated: the messages are those of the descriptors.
//
//   node ws.mjs URL DESCRIPTORS

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { on, once } from "node:events";

import { create, createFileRegistry, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import WebSocket from "ws";

const [url, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const [request, response] = ["SessionRequest", "SessionResponse"].map((name) => registry.getMessage(`switchyard.v1.${name}`));
const forms = {
  "switchyard.v1.json": {
    write: (message) => JSON.stringify(toJson(request, message)),
    read: (data) => fromJson(response, JSON.parse(String(data)), { registry }),
  },
  "switchyard.v1.proto": { write: (message) => toBinary(request, message), read: (data) => fromBinary(response, data) },
};
const LONG = "Grüße ☃".repeat(20_000);

for (const [protocol, { write, read }] of Object.entries(forms)) {
  const socket = new WebSocket(`${url}/v1/ws`, [protocol], { perMessageDeflate: true });
  const messages = on(socket, "message", { close: ["close"] });
  const next = async () => {
    for (;;) {
      const { value } = await messages.next();
      assert.ok(value, `${protocol}: closed`);
      const [data, isBinary] = value;
      assert.equal(isBinary, protocol.endsWith(".proto"), "text is JSON, and nothing else");
      const { frame } = read(data);
      if (frame.case !== "heartbeat") return frame;
    }
  };
  const say = (name, value) => socket.send(write(create(request, { requestId: 1n, command: { case: name, value } })));

  await once(socket, "open");
  assert.deepEqual([socket.protocol, socket.extensions], [protocol, ""]);
  say("hello", { clientName: "ws" });
  assert.equal((await next()).case, "welcome");
  // In two frames.
  const subscribe = write(create(request, { command: { case: "subscribe", value: { subscriptionId: 1n, spec: { filters: ["ws.>"] } } } }));
  socket.send(subscribe.slice(0, 9), { fin: false });
  socket.send(subscribe.slice(9), { fin: true });
  assert.equal((await next()).case, "subscribed");
  say("publish", { events: [{ topic: "ws.a", payload: { case: "text", value: LONG } }] });
  const frames = new Map();
  for (let n = 0; n < 2; n += 1) {
    const frame = await next();
    frames.set(frame.case, frame.value);
  }
  assert.equal(frames.get("events").events[0].event.payload.value, LONG);
  assert.equal(frames.get("published").results[0].matched, 1n);

  socket.ping("are you there?");
  assert.equal(String((await once(socket, "pong"))[0]), "are you there?");
  socket.close(1000, "bye");
  assert.equal((await once(socket, "close"))[0], 1000);

  // A message of the other form ends the session, and says why.
  const wrong = new WebSocket(`${url}/v1/ws`, [protocol]);
  await once(wrong, "open");
  wrong.send("{}", { binary: !protocol.endsWith(".proto") });
  const [code, reason] = await once(wrong, "close");
  assert.deepEqual([code, String(reason)], [1003, "MALFORMED_COMMAND"]);
  console.log(`${protocol}: ok`);
}

const refused = new WebSocket(`${url}/v1/ws`, ["mqtt"]);
const [error] = await once(refused, "error");
assert.match(error.message, /400/);
console.log("another subprotocol: refused");

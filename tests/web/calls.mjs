// Calls of a hub by the clients for browsers that others publish: connect-web, by Connect and by gRPC-Web, and Google's
// grpc-web. Nothing is generated: the messages are those of the descriptors.
//
//   node calls.mjs URL DESCRIPTORS

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import grpcWeb from "grpc-web";
import xhr2 from "xhr2";

const [url, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const service = registry.getService("switchyard.v1.HubService");
const publish = { events: ["one", "two"].map((value) => ({ topic: "web.a", payload: { case: "text", value } })) };
const subscribe = { spec: { filters: ["web.>"], maxEvents: 2n } };

/** The texts of the events in a frame. */
const texts = ({ frame }) =>
  frame.case === "events" ? frame.value.events.map(({ event }) => event.payload.value) : [];

async function byConnectWeb(name, transport) {
  const hub = createClient(service, transport);
  assert.equal((await hub.getHub({})).hub.version.length > 0, true, name);

  const error = await hub.publish({ events: [{ topic: "a b" }] }).catch(ConnectError.from);
  assert.equal(error.code, Code.InvalidArgument, `${name}: ${error}`);
  const [info] = error.findDetails(registry.getMessage("google.rpc.ErrorInfo"));
  assert.equal(info.reason, "INVALID_TOPIC", name);

  const got = [];
  for await (const response of hub.subscribe(subscribe)) {
    if (response.frame.case === "subscribed") {
      const { results } = await hub.publish(publish);
      assert.deepEqual(results.map(({ matched }) => matched), [1n, 1n], name);
    }
    got.push(...texts(response));
  }
  assert.deepEqual(got, ["one", "two"], name);

  const late = await (async () => {
    for await (const _ of hub.subscribe(subscribe, { timeoutMs: 50 }));
  })().catch(ConnectError.from);
  assert.equal(late.code, Code.DeadlineExceeded, name);
  console.log(`${name}: ok`);
}

globalThis.XMLHttpRequest = xhr2;

async function byGrpcWeb(format) {
  const name = `grpc-web ${format}`;
  const hub = new grpcWeb.GrpcWebClientBase({ format });
  const method = (call, type) => {
    const { input, output } = service.methods.find((method) => method.name === call);
    const serialize = (message) => toBinary(input, create(input, message));
    return new grpcWeb.MethodDescriptor(
      `/${service.typeName}/${call}`, type, Object, Object, serialize, (bytes) => fromBinary(output, bytes));
  };
  const unary = (call, request) => {
    const described = method(call, grpcWeb.MethodType.UNARY);
    return hub.unaryCall(`${url}/${service.typeName}/${call}`, request, {}, described);
  };
  assert.equal((await unary("GetHub", {})).hub.version.length > 0, true, name);

  const error = await unary("Publish", { events: [{ topic: "a b" }] }).catch((error) => error);
  assert.equal(error.code, grpcWeb.StatusCode.INVALID_ARGUMENT, `${name}: ${error}`);

  const got = [];
  const described = method("Subscribe", grpcWeb.MethodType.SERVER_STREAMING);
  const stream = hub.serverStreaming(`${url}/${service.typeName}/Subscribe`, subscribe, {}, described);
  const ended = new Promise((resolve, reject) => {
    stream.on("data", (response) => got.push(...texts(response)));
    stream.on("error", reject);
    stream.on("end", resolve);
  });
  // This XMLHttpRequest shows nothing before the end, so that nobody says when the subscription is open.
  let matched = 0n;
  while (matched === 0n) {
    ({ matched } = (await unary("Publish", { events: publish.events.slice(0, 1) })).results[0]);
  }
  await unary("Publish", { events: publish.events.slice(1) });
  await ended;
  assert.deepEqual(got, ["one", "two"], name);
  console.log(`${name}: ok`);
}

for (const useBinaryFormat of [false, true]) {
  const form = useBinaryFormat ? "binary" : "JSON";
  // JSON of an `Any` is read by those who know what may be in it.
  const options = { baseUrl: url, useBinaryFormat, jsonOptions: { registry } };
  await byConnectWeb(`connect-web Connect ${form}`, createConnectTransport({ ...options, useHttpGet: true }));
  await byConnectWeb(`connect-web gRPC-Web ${form}`, createGrpcWebTransport(options));
}
await byGrpcWeb("text");
await byGrpcWeb("binary");

// The client as a whole, over WebSockets that lead to a hub in memory.

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Client, connect, type Item, MemoryPosition, type Options, Reject, RetryLater } from "../src/index.js";
import { FilePosition } from "../src/node.js";
import { Network } from "./fake.js";
import { CODE, status } from "./world.js";

function clientOf(network: Network, options: Options = {}): Client {
  return connect({ addresses: "http://hub", name: "test", logger: false, webSocket: network.WebSocket, ...options });
}

/** Until it is so. */
async function until(is: () => boolean): Promise<void> {
  for (let turns = 0; !is(); turns += 1) {
    assert(turns < 2000, "it does not come");
    await sleep(1);
  }
}

async function texts(items: AsyncIterable<Item>, count: number): Promise<string[]> {
  const all: string[] = [];
  for await (const item of items) {
    if (item.kind === "events") {
      all.push(...item.events.map((event) => event.text ?? ""));
    }
    if (all.length >= count) {
      break;
    }
  }
  return all;
}

test("what is published is read, over sessions that are cut", async () => {
  const network = new Network();
  const hub = clientOf(network);
  const orders = hub.subscribe({ stream: "s", from: "earliest" });
  const read = texts(orders, 6);
  const published = ["a", "b", "c"].map((text) => hub.publish({ topic: "s.x", text }));
  const sequences = (await Promise.all(published)).map((one) => one.kind === "stored" && one.sequence);
  assert.deepEqual(sequences, [1n, 2n, 3n]);
  network.socket?.cut();
  await until(() => hub.status.state === "waiting");
  assert.equal(hub.status.reason?.message.startsWith("http://hub: UNAVAILABLE: "), true);
  const later = ["d", "e", "f"].map((text) => hub.publish({ topic: "s.x", text }));
  await Promise.all(later);
  assert.deepEqual(await read, ["a", "b", "c", "d", "e", "f"]);
  // Whoever leaves the loop closes the subscription.
  await until(() => hub.stats.subscriptions === 0);
  assert.equal(network.hub.subs.size, 0);
  assert.deepEqual(await hub.drain(), {
    clean: true,
    events: 0,
    acknowledgements: 0,
    unknownPublishes: 0,
    unsentPublishes: 0,
  });
  assert.equal(hub.status.state, "closed");
  await assert.rejects(hub.publish({ topic: "s.x" }), { kind: "closed" });
  assert.throws(() => hub.subscribe({ stream: "s" }), { kind: "closed" });
});

test("nothing happens before a client is run, and states are told in their order", async () => {
  const network = new Network();
  const states: string[] = [];
  const hub = new Client({ addresses: "http://hub", logger: false, webSocket: network.WebSocket });
  hub.on("state", ({ state }) => {
    states.push(state);
    if (state === "up") {
      // Whoever hears of a state may end the client.
      void hub.drain();
    }
  });
  await sleep(5);
  assert.deepEqual([network.asked.length, hub.status.state], [0, "idle"]);
  await hub.run();
  assert.deepEqual(states, ["connecting", "up", "closing", "closed"]);
  await assert.doesNotReject(hub.run(), "it is over, and says so");
});

test("a token is shown as a subprotocol, and a source that fails makes attempts fail", async () => {
  const network = new Network();
  let token: string | undefined;
  const source = (): string => {
    assert(token !== undefined, "no token today");
    return token;
  };
  const hub = clientOf(network, { token: source });
  await until(() => hub.status.state === "waiting");
  assert.equal(hub.status.reason?.reason, "TOKEN_SOURCE");
  assert.equal(network.asked.length, 0);
  token = "secret";
  await until(() => hub.status.state === "up");
  const [asked] = network.asked;
  assert.deepEqual(asked, { url: "ws://hub/v1/ws", protocols: ["switchyard.v1.json", "switchyard.bearer.c2VjcmV0"] });
  token = "fresh";
  network.hub.say(undefined, { credentialExpiring: {} });
  network.socket?.flush();
  await until(() => network.hub.authenticated.length > 0);
  assert.deepEqual(network.hub.authenticated, ["fresh"]);
  await hub.close();
});

test("a session that is refused for good fails the client, and everybody hears why", async () => {
  const network = new Network();
  const hub = clientOf(network);
  const live = hub.subscribe({ filters: ["a"] });
  await live.ready();
  const publishing = hub.publish({ topic: "later" });
  publishing.catch(() => undefined);
  network.hub.say(undefined, { error: status(CODE.ABORTED, "SESSION_TERMINATED") });
  network.swallows = false;
  network.socket?.flush();
  network.socket?.cut(4081, "SESSION_TERMINATED");
  await until(() => hub.status.state === "failed");
  await assert.rejects(live.next(), { reason: "SESSION_TERMINATED" });
  assert.equal(await live.next(), undefined, "an error is told once");
  await assert.rejects(hub.drain(), { reason: "SESSION_TERMINATED" });
  await assert.rejects(hub.publish({ topic: "a" }), { kind: "closed", reason: "SESSION_TERMINATED" });
});

test("a queue that is full makes callers wait in order, or says that there is no room", async () => {
  const network = new Network();
  network.refuses = true;
  const hub = clientOf(network, { queueEvents: 2 });
  const order: string[] = [];
  const publish = (text: string): Promise<unknown> => hub.publish({ topic: "s.x", text }).then(() => order.push(text));
  const all = ["1", "2", "3", "4"].map(publish);
  await assert.rejects(hub.tryPublish({ topic: "s.x" }), { kind: "refused", reason: "QUEUE_FULL" });
  await assert.rejects(hub.publish({ topic: "s.x" }, { timeoutMs: 20 }), { kind: "refused", reason: "DEADLINE_PASSED" });
  assert.equal(hub.stats.queuedPublishes, 2);
  network.refuses = false;
  await Promise.all(all);
  assert.deepEqual(order, ["1", "2", "3", "4"]);
  assert.deepEqual(network.hub.log.map((event) => event.text), ["1", "2", "3", "4"]);
  const { answer } = await hub.enqueue({ topic: "live" });
  assert.deepEqual(await answer, { kind: "live", matched: 1 });
  const results = await hub.publishAll([{ topic: "s.x" }, { topic: "s.y" }], { ifLastSequence: 4 });
  assert.deepEqual(results.map((result) => result instanceof Error || result.kind), ["stored", "stored"]);
  await hub.close();
});

test("calls that wait for room when a client ends are refused", async () => {
  const network = new Network();
  network.refuses = true;
  const hub = clientOf(network, { queueEvents: 1 });
  const calls = [hub.publish({ topic: "s.x" }), hub.publish({ topic: "s.x" })];
  const outcomes = Promise.allSettled(calls);
  const left = await hub.drain({ timeoutMs: 30 });
  assert.deepEqual([left.clean, left.unsentPublishes], [false, 1]);
  assert((await outcomes).every((one) => one.status === "rejected" && (one.reason as { kind: string }).kind === "closed"));
});

test("a place is kept when a batch is done, and the next run goes on behind it", async () => {
  const network = new Network();
  const position = new MemoryPosition();
  const hub = clientOf(network);
  await hub.publish({ topic: "s.x", text: "1" });
  const first = hub.subscribe({ stream: "s", from: "earliest", position });
  const item = await first.next();
  assert(item?.kind === "events");
  assert.equal(position.token, undefined);
  await item.done();
  assert.deepEqual([position.token, first.position], ["1", "1"]);
  first.close();
  await hub.publish({ topic: "s.x", text: "2" });
  const again = hub.subscribe({ stream: "s", from: "earliest", position });
  assert.deepEqual(await texts(again, 1), ["2"]);
  assert.equal(position.token, "1", "what is not done is not kept");

  const broken = { load: () => Promise.reject(new Error("no disk")), keep: () => Promise.resolve() };
  await assert.rejects(hub.subscribe({ stream: "s", position: broken }).next(), { reason: "POSITION_STORE" });
  await hub.close();
});

test("a file keeps a place whole, and nothing else is taken for one", async () => {
  const folder = await mkdtemp(join(tmpdir(), "switchyard-position-"));
  const path = join(folder, "token");
  const store = new FilePosition(path);
  assert.equal(await store.load(), undefined);
  for (const token of ["one", "two", "x".repeat(256)]) {
    await store.keep(token);
    assert.equal(await new FilePosition(path).load(), token);
  }
  assert.deepEqual(await readdir(folder), ["token"]);
  for (const content of ["", "\n", "two words", "x".repeat(257)]) {
    await writeFile(path, content);
    await assert.rejects(store.load());
  }
  const victim = join(folder, "victim");
  await writeFile(victim, "precious");
  await symlink(victim, `${path}.new`);
  await store.keep("one");
  assert.equal(await readFile(victim, "utf8"), "precious");
  await symlink(victim, join(folder, "linked"));
  await assert.rejects(new FilePosition(join(folder, "linked")).load());
  await rm(folder, { recursive: true });
});

test("a worker acknowledges by how its handler ends, and has no more at a time than it may", async () => {
  const network = new Network();
  const hub = clientOf(network);
  for (const text of ["ok", "later", "never", "broken", "ok"]) {
    await hub.publish({ topic: "s.x", text });
  }
  let [running, most] = [0, 0];
  const seen: string[] = [];
  const worker = hub.runWorker({ stream: "s", group: "g", from: "earliest", concurrency: 2 }, async (event) => {
    running += 1;
    most = Math.max(most, running);
    await sleep(2);
    running -= 1;
    const isFirst = !seen.includes(event.text ?? "");
    seen.push(event.text ?? "");
    if (event.text === "later" && isFirst) {
      throw new RetryLater("busy", 5000);
    }
    if (event.text === "never") {
      throw new Reject("no use");
    }
    if (event.text === "broken" && isFirst) {
      throw new Error("oops");
    }
  });
  await until(() => network.hub.done.size === 5);
  assert.equal(most, 2);
  const told = network.hub.told.filter(({ outcome }) => outcome !== "ACK_OUTCOME_ACK");
  const words = told.map(({ outcome, reason, delay }) => [outcome, reason, delay]);
  assert.deepEqual(words, [
    ["ACK_OUTCOME_NACK", "busy", "5s"],
    ["ACK_OUTCOME_REJECT", "no use", undefined],
    ["ACK_OUTCOME_NACK", "oops", undefined],
  ]);
  await hub.drain();
  await worker;
  await assert.rejects(hub.runWorker({ stream: "s", group: "g", concurrency: 0 }, () => undefined), { kind: "invalid" });
});

test("members say what becomes of their events, and can wait until it is stored", async () => {
  const network = new Network();
  const hub = clientOf(network);
  const work = hub.subscribe({ stream: "s", group: "g", from: "earliest" });
  await hub.publishAll(["1", "2", "3"].map((text) => ({ topic: "s.x", text })));
  const item = await work.next();
  assert(item?.kind === "events");
  const [first, second, third] = item.events;
  await first?.acked();
  await assert.rejects(first?.acked() ?? Promise.resolve(), { kind: "leaseLost" }, "the first word holds");
  second?.ack();
  await work.settled();
  assert.deepEqual([...network.hub.done], [1, 2]);
  third?.forget();
  assert.equal(hub.stats.eventsInHand, 0);
  network.hub.leases.forgetAll();
  network.socket?.flush();
  const again = await work.next();
  assert(again?.kind === "events" && again.events[0]?.sequence === 3n);
  await hub.close();
});

test("a hub that is silent is left, and so is one that answers in another language", async () => {
  const network = new Network();
  const hub = clientOf(network, { heartbeatMs: 1000 });
  await until(() => hub.status.state === "up");
  network.socket?.onmessage?.({ data: "not JSON" });
  await until(() => hub.status.state === "waiting");
  assert.equal(hub.status.reason?.code, "INTERNAL");
  await until(() => hub.status.state === "up");
  network.socket?.onmessage?.({ data: new Uint8Array() });
  await until(() => hub.status.state === "waiting");
  await hub.close();
});

test("settings at their limits are taken, and one past them is not", () => {
  const network = new Network();
  const make = (options: Options): Client => new Client({ addresses: "http://hub", webSocket: network.WebSocket, ...options });
  const labels = (count: number, bytes: number): Record<string, string> =>
    Object.fromEntries(Array.from({ length: count }, (_, at) => [String(at).padStart(2, "0"), "x".repeat(bytes)]));
  const good: Options[] = [
    { name: "x".repeat(256), labels: labels(32, 126) },
    { heartbeatMs: 1000, queueEvents: 1, queueBytes: 1 },
    { heartbeatMs: 300_000, addresses: ["https://a", "http://b:1/path/"] },
  ];
  good.forEach(make);
  const bad: [Options, string][] = [
    [{ addresses: [] }, "addresses"],
    [{ addresses: ["http://a", "ftp://b"] }, "addresses"],
    [{ addresses: "hub:50080" }, "addresses"],
    [{ name: "x".repeat(257) }, "name"],
    [{ labels: labels(33, 1) }, "labels"],
    [{ labels: labels(32, 127) }, "labels"],
    [{ heartbeatMs: 999 }, "heartbeatMs"],
    [{ heartbeatMs: 300_001 }, "heartbeatMs"],
    [{ queueEvents: 0 }, "queueEvents"],
    [{ queueBytes: 0 }, "queueBytes"],
  ];
  for (const [options, field] of bad) {
    assert.throws(() => make(options), { kind: "invalid", field });
  }
});

test("the bundle for browsers is the same client", async () => {
  const bundle = (await import(new URL("../../dist/switchyard.js", import.meta.url).href)) as Record<string, unknown>;
  const sources = (await import("../src/index.js")) as Record<string, unknown>;
  assert.deepEqual(Object.keys(bundle).sort(), Object.keys(sources).sort());
  const network = new Network();
  const hub = (bundle["connect"] as typeof connect)({ addresses: "http://hub", webSocket: network.WebSocket });
  assert.equal((await hub.publish({ topic: "live" })).kind, "live");
  await hub.close();
});

// Sessions: states, waits, addresses, silence, draining, and what is for ever.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SwitchyardError } from "../src/error.js";
import type { Loss } from "../src/machine/machine.js";
import { ACK } from "../src/machine/verdict.js";
import { CODE, failed, STREAM, status, World } from "./world.js";

test("every change of state is told with its reason", () => {
  const world = new World();
  world.connect();
  world.clientReads(1);
  world.lose(failed(CODE.UNAVAILABLE, "DRAINING"));
  world.connect();
  world.lose(failed(CODE.INTERNAL, ""));
  world.connect();
  world.clientReads(1);
  const states = world.states.map(({ state, sessionId, attempt }) => [state, sessionId, attempt]);
  assert.deepEqual(states, [
    ["connecting", "", 1],
    ["up", "session-1", 0],
    ["waiting", "session-1", 0],
    ["connecting", "session-1", 1],
    ["waiting", "session-1", 1],
    ["connecting", "session-1", 2],
    ["up", "session-3", 0],
  ]);
  const reason = world.states[2]?.reason;
  assert.equal(reason?.reason, "DRAINING");
  assert(reason.message.startsWith("http://hub: "), reason.message);
  assert.equal(world.states[6]?.reason, undefined);
  const stats = world.machine.stats(world.now);
  assert.deepEqual([stats.sessions, stats.losses], [2, { DRAINING: 1, INTERNAL: 1 }]);
});

test("waits grow to five seconds, and are short again after a session that worked", () => {
  const world = new World();
  const waits: number[] = [];
  for (let tries = 0; tries < 40; tries += 1) {
    world.connect();
    const since = world.now;
    world.lose(failed(CODE.UNAVAILABLE, ""));
    world.connect();
    waits.push(world.now - since);
    world.lose(failed(CODE.UNAVAILABLE, ""));
  }
  assert(waits.every((wait) => wait <= 5000));
  assert(waits.slice(20).some((wait) => wait > 3000));
  // One that ends too soon changes nothing; one that lasted does.
  for (const [lasts, most] of [
    [9000, 5000],
    [10_000, 100],
  ] as const) {
    world.connect();
    world.clientReads(1);
    world.pass(lasts);
    const since = world.now;
    world.cut();
    world.connect();
    assert(world.now - since <= most, `after ${lasts} ms: ${world.now - since}`);
    world.lose(failed(CODE.UNAVAILABLE, ""));
  }
});

test("the wait that the hub asks for is kept, and one for what is used up may be longer", () => {
  const world = new World();
  for (const delay of [7000, 60_000]) {
    world.connect();
    const since = world.now;
    world.lose(failed(CODE.UNAVAILABLE, "DRAINING", delay));
    world.connect();
    assert.equal(world.now - since, delay);
  }
  let longest = 0;
  for (let tries = 0; tries < 60; tries += 1) {
    const since = world.now;
    world.lose(failed(CODE.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS"));
    world.connect();
    longest = Math.max(longest, world.now - since);
  }
  assert(longest > 10_000 && longest <= 30_000, String(longest));
});

test("a hub that ends sessions at once and asks for no wait is not called in a loop", () => {
  const world = new World();
  const waits: number[] = [];
  const told = failed(CODE.UNAVAILABLE, "DRAINING", 1);
  for (let tries = 0; tries < 40; tries += 1) {
    world.connect();
    world.clientReads(1);
    const since = world.now;
    world.lose(told);
    world.connect();
    waits.push(world.now - since);
    world.clientReads(1);
    world.cut();
  }
  assert(waits.slice(20).some((wait) => wait > 3000));
  // One that worked is left as soon as the hub says.
  world.connect();
  world.clientReads(1);
  world.pass(10_000);
  const since = world.now;
  world.lose(told);
  world.connect();
  assert.equal(world.now - since, 1);
});

test("each failure leads to the next address", () => {
  const world = new World({ addresses: ["http://hub-0", "http://hub-1", "http://hub-2"] });
  for (let tries = 0; tries < 6; tries += 1) {
    world.connect();
    world.lose(failed(CODE.UNAVAILABLE, ""));
  }
  const tried = world.opened.map(({ address }) => address);
  assert.deepEqual(tried.slice(0, 3).sort(), ["http://hub-0", "http://hub-1", "http://hub-2"]);
  assert.deepEqual(tried.slice(3), world.opened.slice(0, 3).map(({ address }) => address));
});

test("what trying again cannot mend fails the client loudly", () => {
  const cases: [Loss, boolean, boolean][] = [
    [failed(CODE.UNAUTHENTICATED, "CREDENTIAL_INVALID"), false, true],
    [failed(CODE.UNAUTHENTICATED, "CREDENTIAL_INVALID"), true, false],
    [failed(CODE.PERMISSION_DENIED, "ACTION_DENIED"), true, true],
    [failed(CODE.UNIMPLEMENTED, ""), true, true],
    [failed(CODE.ABORTED, "SESSION_TERMINATED"), false, true],
    [failed(CODE.INTERNAL, "INTERNAL"), false, false],
    [failed(CODE.DATA_LOSS, "STORE_CORRUPT"), false, false],
  ];
  for (const [loss, hasSource, fails] of cases) {
    const world = new World({ hasSource });
    world.connect();
    world.clientReads(1);
    const id = world.subscribe({ filters: ["a"] });
    world.lose(loss);
    assert.equal(world.state, fails ? "failed" : "waiting");
    assert.equal(world.machine.table.takeEnd(id)?.error !== undefined, fails);
    const plan = world.machine.plan(world.now);
    assert.equal(plan.to === "stop" && plan.error !== undefined, fails);
    if (fails) {
      assert.throws(() => world.machine.checkOpen(), { kind: "closed" });
      assert.deepEqual(world.machine.table.takeEnd(id), { error: undefined }, "an error is told once");
    }
  }
  const world = new World({ returnsWhenTerminated: true });
  world.connect();
  world.clientReads(1);
  world.lose(failed(CODE.ABORTED, "SESSION_TERMINATED"));
  assert.equal(world.state, "waiting");
});

test("what the hub says of a session before it ends it is the reason", () => {
  const world = new World();
  world.connect();
  world.clientReads(1);
  world.hear({ error: status(CODE.ABORTED, "SESSION_TERMINATED") });
  assert.equal(world.state, "up");
  world.cut();
  assert.equal(world.state, "failed");
  assert.equal(world.states.at(-1)?.reason?.reason, "SESSION_TERMINATED");
});

test("a session in which nothing comes is lost after two intervals and five seconds", () => {
  const world = new World({ heartbeat: 2000 });
  world.connect();
  world.clientReads(1);
  const limit = 2 * 2000 + 5000;
  for (let beats = 0; beats < 5; beats += 1) {
    world.pass(limit - 1);
    world.turn();
    assert(world.isConnected, "it is not time");
    world.hear({ heartbeat: {} });
  }
  assert.equal(world.machine.turn(world.now).wakeAt, world.now + limit);
  world.pass(limit);
  world.turn();
  assert(!world.isConnected);
  const reason = world.states.at(-1)?.reason;
  assert.deepEqual([reason?.reason, reason?.code], ["NOTHING_HEARD", "UNAVAILABLE"]);
});

test("time in which the client did not run is no silence of the hub", () => {
  const world = new World({ heartbeat: 2000 });
  world.connect();
  world.clientReads(1);
  // It was stopped for an hour. What has come meanwhile gets a moment to arrive.
  world.pass(3_600_000);
  world.turn();
  assert(world.isConnected);
  assert.equal(world.machine.turn(world.now).wakeAt, world.now + 5000);
  world.pass(5000);
  world.turn();
  assert(!world.isConnected, "nothing has come");
});

test("a hub that accepts and says nothing is left too", () => {
  const world = new World({ heartbeat: 300_000 });
  world.connect();
  world.hub.out = [];
  world.pass(9999);
  world.turn();
  assert(world.isConnected);
  world.pass(1);
  world.turn();
  assert(!world.isConnected);
});

test("opening a session and its welcome share one time", () => {
  const world = new World();
  assert.equal(world.machine.plan(world.now).to, "open");
  world.pass(9000);
  world.machine.connected(world.now, undefined, 9000);
  const overAt = world.now + 1000;
  assert.equal(world.machine.turn(world.now).wakeAt, overAt);
  assert(!world.machine.isSilent(overAt - 1));
  assert(world.machine.isSilent(overAt));
});

test("hello is first, and names the session before", () => {
  const world = new World({ labels: { a: "b" } });
  world.subscribe({ filters: ["x"] });
  for (let sessions = 0; sessions < 3; sessions += 1) {
    world.settle();
    world.cut();
  }
  const previous = world.hub.hellos.map((hello) => hello.previousSessionId);
  assert.deepEqual(previous, [undefined, "session-1", "session-2"]);
  const [hello] = world.hub.hellos;
  assert.deepEqual([hello?.clientName, hello?.labels, hello?.heartbeatInterval], ["test", { a: "b" }, "15s"]);
});

function drain(world: World, reconnectDelay: string): void {
  world.hear({ draining: { reconnectDelay } });
}

/** Some time in which the client turns, and both read. */
function turns(world: World, count: number, reads = true): void {
  for (let turn = 0; turn < count; turn += 1) {
    world.pass(20);
    world.turn();
    if (reads) {
      world.hubReads();
      world.clientReads();
    }
  }
}

test("a hub that drains is left when nothing is begun, and the next one is tried after its delay", () => {
  const world = new World({ addresses: ["http://a", "http://b"] });
  const id = world.subscribe({ stream: STREAM, group: "g", from: "earliest" });
  world.publish("s.x", "1");
  world.settle();
  const events = world.takeAll(id);
  drain(world, "3s");
  assert.equal(world.state, "draining");
  const unanswered = world.publish("s.x", "2");
  turns(world, 20, false);
  assert(world.isConnected, "an event is in hand");
  assert(world.settleEvent(id, events[0] as never, ACK));
  turns(world, 20);
  assert(!world.isConnected, "nothing is begun any more");
  assert.equal(world.hub.done.size, 1);
  assert(world.results.has(unanswered), "what was written is answered first");
  const since = world.opened[0]?.address;
  const left = world.now;
  assert.equal(world.state, "waiting");
  world.connect();
  assert(world.now - left >= 2000 && world.now - left <= 3000);
  assert.notEqual(world.opened[1]?.address, since);
  world.settle();
  assert.deepEqual(world.takeAll(id).map(([sequence]) => sequence), [2]);
});

test("a hub that drains is not left while a publish is unanswered, and gets no new one", () => {
  const world = new World();
  world.connect();
  world.clientReads(1);
  const first = world.publish("s.x", "1");
  world.turn();
  drain(world, "0s");
  turns(world, 1, false);
  const second = world.publish("s.x", "2");
  turns(world, 20, false);
  assert(world.isConnected);
  world.hubReads();
  assert.equal(world.hub.log.length, 1);
  world.clientReads();
  turns(world, 1, false);
  assert(!world.isConnected && world.results.has(first));
  world.settle();
  assert(world.results.has(second));
});

test("three drains in a row are three sessions", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM, from: "earliest" });
  for (let number = 1; number <= 3; number += 1) {
    world.publish("s.x", String(number));
    world.settle();
    drain(world, "0s");
    turns(world, 5, false);
    assert(!world.isConnected);
    assert.deepEqual(world.takeAll(id).map(([sequence]) => sequence), [number]);
  }
  assert.equal(world.hub.sessions, 3);
});

test("a token that expires is replaced in its session, and one that comes late is nobody's", () => {
  const world = new World({ hasSource: true });
  world.connect();
  world.clientReads(1);
  assert.equal(world.machine.turn(world.now).fetch, undefined);
  world.hear({ credentialExpiring: {} });
  const session = world.machine.turn(world.now).fetch;
  assert(session !== undefined, "it is time");
  assert(world.machine.fetched(world.now, session, { value: "two", life: undefined }));
  world.turn();
  world.hubReads();
  assert.deepEqual(world.hub.authenticated, ["two"]);
  world.hear({ credentialExpiring: {} });
  const late = world.machine.turn(world.now).fetch;
  assert(late !== undefined);
  world.cut();
  world.connect();
  world.clientReads(1);
  assert(world.machine.fetched(world.now, late, { value: "late", life: undefined }));
  world.turn();
  world.hubReads();
  assert.deepEqual(world.hub.authenticated, ["two"]);
});

test("a thousand subscriptions are opened again in one session", () => {
  const world = new World();
  const ids = Array.from({ length: 1000 }, () => world.subscribe({ filters: ["x"] }));
  for (let sessions = 0; sessions < 2; sessions += 1) {
    world.connect();
    world.clientReads(1);
    turns(world, 3);
    assert(ids.every((id) => world.machine.table.get(id)?.isOpen() === true));
    world.cut();
    assert(ids.every((id) => world.machine.table.get(id)?.isOpen() === false));
  }
});

test("addresses that hubs name are tried when a session is lost", () => {
  const world = new World({ addresses: ["http://hub-0:1"] });
  world.hub.alternatives = ["http://hub-1:1"];
  world.settle();
  world.hear({ draining: { reconnectDelay: "0s", alternatives: ["http://hub-2:1", "http://hub-0:1"] } });
  for (let losses = 0; losses < 4; losses += 1) {
    world.lose(failed(CODE.UNAVAILABLE, ""));
    world.connect();
  }
  const tried = world.opened.map(({ address }) => address);
  const expected = [0, 1, 2, 0, 1].map((hub) => `http://hub-${hub}:1`);
  assert.deepEqual(tried, expected);
});

test("a subscription that is refused when nobody wants it any more is forgotten", () => {
  const world = new World();
  world.settle();
  const id = world.subscribe({ filters: ["a"] });
  world.turn();
  world.hubReads();
  const answer = world.hub.out.pop();
  world.hub.out.push({ requestId: answer?.requestId ?? 0, error: status(CODE.INVALID_ARGUMENT, "MALFORMED_COMMAND") });
  world.machine.table.abandon(world.now, id, world.machine.news);
  world.clientReads();
  assert.equal(world.machine.table.totals().subscriptions, 0);
});

test("a client is driven once", () => {
  const world = new World();
  assert.throws(() => world.machine.drive(), (error) => error instanceof SwitchyardError && error.kind === "invalid");
});

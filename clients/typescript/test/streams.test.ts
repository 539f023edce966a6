// Subscriptions from streams, and live ones, over several sessions.

import assert from "node:assert/strict";
import { test } from "node:test";

import type { Missing } from "../src/machine/incoming.js";
import type { SwitchyardError } from "../src/error.js";
import { CODE, sequencesOf, STREAM, status, World } from "./world.js";

/** Takes everything there is: sequences, and gaps. */
function takeAll(world: World, id: number): { sequences: number[]; gaps: Missing[] } {
  const sequences: number[] = [];
  const gaps: Missing[] = [];
  for (let one = world.machine.table.take(world.now, id); one !== undefined; one = world.machine.table.take(world.now, id)) {
    if (one.is === "events") {
      sequences.push(...one.events.map((event) => Number(event.sequence)));
    } else if (one.is === "gap") {
      gaps.push(one.missing);
    }
  }
  return { sequences, gaps };
}

function ended(world: World, id: number, code: number, name: string, delay?: number): void {
  world.hub.subs.delete(id);
  world.hear({
    ended: {
      subscriptionId: String(id),
      ...(code !== 0 && { status: status(code, name, delay) }),
      reason: `END_REASON_${name}`,
      ...(delay !== undefined && { retry: { retry: true, delay: `${delay / 1000}s` } }),
    },
  });
}

function publish(world: World, from: number, to: number): void {
  for (let number = from; number <= to; number += 1) {
    world.publish("s.x", String(number));
  }
}

function endOf(world: World, id: number): SwitchyardError | undefined {
  const end = world.machine.table.takeEnd(id);
  assert(end !== undefined, "it is over");
  return end.error;
}

function isOpen(world: World, id: number): boolean {
  return world.machine.table.get(id)?.isOpen() === true;
}

test("a session goes on behind what has come, and the next run behind what is done", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM, from: "earliest" });
  publish(world, 1, 3);
  world.settle();
  const first = world.takeEvents(id);
  assert.equal(first?.events.length, 3);
  assert.equal(world.machine.table.get(id)?.done(), undefined, "nothing is done");
  world.cut();
  publish(world, 4, 6);
  world.settle();
  assert.deepEqual(takeAll(world, id).sequences, [4, 5, 6], "1 to 3 are in hand, and do not come again");
  world.machine.table.finishBatch(world.now, id, first.batch, world.machine.news);
  assert.equal(world.machine.table.get(id)?.done(), "3", "4 to 6 are not done");
});

test("a subscription of what is new misses nothing that comes while it is away", () => {
  const world = new World();
  publish(world, 1, 2);
  world.settle();
  const id = world.subscribe({ stream: STREAM });
  world.connect();
  world.turn();
  world.hubReads();
  // It is open, and no token has come.
  world.clientReads();
  assert(isOpen(world, id));
  world.cut();
  // By somebody else.
  world.hub.log.push({ topic: "s.x", id: "3" }, { topic: "s.x", id: "4" });
  world.settle();
  assert.deepEqual(takeAll(world, id), { sequences: [3, 4], gaps: [] });
});

test("what is taken makes room, and what is not stops the hub", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM, from: "earliest", window: 4 });
  publish(world, 1, 20);
  world.settle();
  assert.equal(world.held, 4);
  assert(world.machine.table.totals().fullWindows > 0);
  const all: number[] = [];
  for (let some = world.takeEvents(id); some !== undefined; some = world.takeEvents(id)) {
    all.push(...sequencesOf(some.events));
    assert(world.held <= 4);
    world.settle();
  }
  assert.deepEqual(all, Array.from({ length: 20 }, (_, at) => at + 1));
  assert.equal(world.held, 0);
});

test("a live subscription hears of what it may have missed in its place", () => {
  const world = new World();
  const id = world.subscribe({ filters: ["x"] });
  world.connect();
  world.cut();
  world.settle();
  assert.deepEqual(takeAll(world, id).gaps, [], "it had not begun");
  world.hear({ events: { subscriptionId: String(id), events: [{ event: { topic: "x" } }] } });
  for (let losses = 0; losses < 3; losses += 1) {
    // However often it fails to come back, it is one gap.
    world.cut();
    world.connect();
  }
  world.settle();
  assert.equal(world.machine.table.take(world.now, id)?.is, "events");
  const gap = world.machine.table.take(world.now, id);
  assert.deepEqual(gap, { is: "gap", missing: { reason: "away", count: undefined, from: undefined, to: undefined } });
  assert.equal(world.machine.table.take(world.now, id), undefined);
});

test("a stream that was created again is a gap to one that has no token yet", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM });
  world.connect();
  world.clientReads(1);
  world.turn();
  world.hubReads();
  world.clientReads();
  world.cut();
  world.connect();
  world.clientReads(1);
  world.turn();
  world.hubReads();
  const [frame] = world.hub.out;
  assert(frame?.subscribed !== undefined);
  frame.subscribed.epoch = "2";
  world.clientReads();
  assert.deepEqual(takeAll(world, id).gaps.map((gap) => gap.reason), ["epoch"]);
});

test("one that ends for a while comes back after its delay", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM, from: "earliest" });
  world.settle();
  ended(world, id, CODE.UNAVAILABLE, "ENGINE_UNAVAILABLE", 3000);
  assert(!isOpen(world, id));
  assert.equal(world.machine.table.due(), world.now + 3000);
  world.pass(2999);
  world.turn();
  world.hubReads();
  assert.equal(world.hub.out.length, 0, "it is not time");
  world.settle();
  assert(isOpen(world, id));
  assert.equal(world.machine.table.takeEnd(id), undefined);
});

test("one that ends at once again and again waits longer and longer", () => {
  const world = new World();
  const id = world.subscribe({ filters: ["x"] });
  world.settle();
  let longest = 0;
  for (let ends = 0; ends < 40; ends += 1) {
    ended(world, id, CODE.RESOURCE_EXHAUSTED, "SLOW_CONSUMER", 0);
    const due = world.machine.table.due();
    assert(due !== undefined);
    longest = Math.max(longest, due - world.now);
    world.now = due;
    world.turn();
    world.hubReads();
    world.clientReads();
    assert(isOpen(world, id));
  }
  assert(longest > 5000 && longest <= 30_000, String(longest));
});

test("one that ends for good says why once, behind what came", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM, from: "earliest" });
  publish(world, 1, 1);
  world.settle();
  ended(world, id, CODE.NOT_FOUND, "STREAM_NOT_FOUND");
  assert.deepEqual(takeAll(world, id).sequences, [1]);
  const error = endOf(world, id);
  assert.deepEqual([error?.kind, error?.reason], ["ended", "STREAM_NOT_FOUND"]);
  assert(error?.message.startsWith("stream s at http://hub: "), error?.message);
  assert.equal(endOf(world, id), undefined);
  world.cut();
  world.settle();
  assert(!isOpen(world, id), "it does not come back");
});

test("an end that nobody asked for is not taken for one that was", () => {
  const world = new World();
  const [limited, taken] = [world.subscribe({ filters: ["x"] }), world.subscribe({ filters: ["y"] })];
  world.settle();
  ended(world, limited, 0, "LIMIT_REACHED");
  ended(world, taken, 0, "CLIENT_UNSUBSCRIBED");
  assert.equal(endOf(world, limited), undefined);
  assert.equal(endOf(world, taken)?.kind, "ended");
});

test("an expired credential ends a subscription only where no other can come", () => {
  for (const hasSource of [true, false]) {
    const world = new World({ hasSource });
    const id = world.subscribe({ filters: ["x"] });
    world.settle();
    ended(world, id, CODE.UNAUTHENTICATED, "CREDENTIAL_EXPIRED");
    world.settle();
    assert.equal(isOpen(world, id), hasSource);
  }
});

test("one that ends with its session is opened with the next, however soon that comes", () => {
  const world = new World();
  const id = world.subscribe({ filters: ["x"] });
  world.settle();
  ended(world, id, CODE.UNAVAILABLE, "DRAINING", 60_000);
  world.cut();
  world.connect();
  world.clientReads(1);
  world.turn();
  world.hubReads();
  world.clientReads();
  assert(isOpen(world, id));
});

test("a limit holds over several sessions", () => {
  const world = new World();
  const id = world.subscribe({ stream: STREAM, from: "earliest", limit: 5 });
  publish(world, 1, 2);
  world.settle();
  world.cut();
  publish(world, 3, 9);
  world.connect();
  world.clientReads(1);
  world.turn();
  world.hubReads();
  world.hub.send();
  assert.equal(world.hub.subscribes.at(-1)?.maxEvents, "3");
  // The hub counts for itself; this one does not.
  world.clientReads(3);
  assert.deepEqual(takeAll(world, id).sequences, [1, 2, 3, 4, 5]);
  world.cut();
  assert.equal(endOf(world, id), undefined, "it has all that it wanted");
});

test("one that nobody reads is ended and forgotten, once its last batch is out of hand", () => {
  const position = { load: () => Promise.resolve(undefined), keep: () => Promise.resolve() };
  for (const isKept of [true, false]) {
    const world = new World();
    const id = world.subscribe({ stream: STREAM, from: "earliest", ...(isKept && { position }) });
    publish(world, 1, 3);
    world.settle();
    const some = world.takeEvents(id);
    world.machine.table.abandon(world.now, id, world.machine.news);
    world.settle();
    assert.equal(world.machine.table.totals().subscriptions, isKept ? 1 : 0, "a batch is with the application");
    world.machine.table.dropBatch(world.now, id, some?.batch ?? 0, world.machine.news);
    world.settle();
    assert.equal(world.machine.table.totals().subscriptions, 0);
  }
});

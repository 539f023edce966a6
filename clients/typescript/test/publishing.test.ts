// Publishing: every event once, in order, with the right answer.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SwitchyardError } from "../src/error.js";
import type { Published } from "../src/state.js";
import { CODE, status, World } from "./world.js";

function outcome(world: World, ticket: number): Published {
  const result = world.results.get(ticket)?.[0];
  assert(result !== undefined && !(result instanceof SwitchyardError), "published");
  return result;
}

function sequence(world: World, ticket: number): number {
  const published = outcome(world, ticket);
  assert(published.kind === "stored");
  return Number(published.sequence);
}

function failure(world: World, ticket: number): string[] {
  const result = world.results.get(ticket)?.[0];
  assert(result instanceof SwitchyardError, "not published");
  return [result.kind, result.reason];
}

function ids(world: World): (string | undefined)[] {
  return world.hub.log.map((event) => event.id);
}

function up(world: World): void {
  world.connect();
  world.clientReads(1);
}

test("calls that wait go together, and each gets its answer", () => {
  const world = new World();
  const tickets = Array.from({ length: 700 }, (_, at) => world.publish("s.x", String(at + 1)));
  const live = world.publish("live", "l");
  world.settle();
  tickets.forEach((ticket, at) => assert.equal(sequence(world, ticket), at + 1));
  assert.deepEqual(outcome(world, live), { kind: "live", matched: 1 });
  assert.equal(world.machine.stats(world.now).queuedPublishes, 0);
  assert.deepEqual(world.hub.publishes.map((publish) => publish.length), [500, 201]);
});

test("what was written and not answered is stored once, wherever the connection broke", () => {
  // Written and never read; read and stored, but the answer lost.
  for (const isRead of [false, true]) {
    const world = new World();
    up(world);
    const first = world.publish("s.x", "1");
    world.turn();
    if (isRead) {
      world.hubReads();
      assert.deepEqual(ids(world), ["1"]);
    }
    world.cut();
    const second = world.publish("s.x", "2");
    world.settle();
    assert.deepEqual(ids(world), ["1", "2"], "in order");
    assert.deepEqual([sequence(world, first), sequence(world, second)], [1, 2]);
    const published = outcome(world, first);
    assert.equal(published.kind === "stored" && published.duplicate, isRead);
  }
});

test("an event that no stream keeps is not written twice unless asked to", () => {
  for (const retryLive of [false, true]) {
    const world = new World();
    up(world);
    const ticket = world.publish("live.x", "1", { retryLive });
    const other = world.publish("live.y", "2");
    world.turn();
    world.hubReads();
    world.cut();
    world.settle();
    const delivered = world.hub.live.filter((event) => event.id === "1").length;
    if (retryLive) {
      assert.equal(delivered, 2);
      assert.equal(outcome(world, ticket).kind, "live");
    } else {
      assert.equal(delivered, 1);
      assert.deepEqual(failure(world, ticket), ["unknown", "NO_STREAM"]);
    }
    assert.deepEqual(failure(world, other), ["unknown", "NO_STREAM"]);
  }
});

test("the question is of topic, source and id alone", () => {
  const world = new World();
  up(world);
  world.publishAll([{ topic: "s.x", source: "here", id: "1", text: "much", key: "k" }]);
  world.turn();
  world.cut();
  up(world);
  assert(world.machine.write(world.now)?.includes("hello"));
  const frame = JSON.parse(world.machine.write(world.now) ?? "") as { publish: unknown };
  assert.deepEqual(frame.publish, {
    events: [{ id: "1", topic: "s.x", source: "here" }],
    precondition: { lastSequence: "9223372036854775807" },
  });
});

test("a call of several events is mended event by event", () => {
  const world = new World();
  up(world);
  const events = [
    { topic: "s.x", id: "1" },
    { topic: "live", id: "2" },
    { topic: "s.y", id: "3" },
  ];
  const ticket = world.publishAll(events);
  world.turn();
  world.cut();
  world.settle();
  const results = world.results.get(ticket) ?? [];
  assert.deepEqual(results.map((result) => result instanceof SwitchyardError), [false, true, false]);
  assert.deepEqual(ids(world), ["1", "3"]);
  assert.deepEqual(world.hub.live, [], "it was never read, and is not written again");
});

test("a precondition is repeated as it is", () => {
  const world = new World();
  up(world);
  const precondition = { lastSequence: "0" };
  const first = world.publish("s.x", "1", { precondition });
  world.turn();
  world.hubReads();
  world.cut();
  world.settle();
  const published = outcome(world, first);
  assert(published.kind === "stored" && published.duplicate);
  const second = world.publish("s.x", "2", { precondition });
  world.settle();
  assert.deepEqual(failure(world, second), ["refused", "SEQUENCE_MISMATCH"]);
});

test("the deadline says whether it may have been published", () => {
  const world = new World();
  const unsent = world.publish("s.x", "1", { deadline: 5000 });
  world.pass(5000);
  assert.equal(world.machine.opening(world.now), Infinity);
  world.hearNews();
  assert.deepEqual(failure(world, unsent), ["refused", "DEADLINE_PASSED"]);

  up(world);
  const sent = world.publish("s.x", "2", { deadline: world.now + 5000 });
  world.turn();
  world.pass(5000);
  world.turn();
  assert.deepEqual(failure(world, sent), ["unknown", "DEADLINE_PASSED"]);
  assert.equal(world.machine.stats(world.now).queuedPublishes, 1, "its answer is still to come");
  world.hubReads();
  world.clientReads();
  assert.equal(world.machine.stats(world.now).queuedPublishes, 0);
  assert.deepEqual(ids(world), ["2"]);
});

test("a queue that is full takes nothing until there is room", () => {
  const world = new World({ most: { events: 2, bytes: 1 << 20 } });
  world.publish("s.x", "1");
  world.publish("s.x", "2");
  const call = { events: [{ json: "{}", bytes: 3, key: "{}" }], precondition: undefined, deadline: 1e9, retryLive: false };
  assert.equal(world.machine.publish(call), undefined);
  const three = Array.from({ length: 3 }, () => call.events[0] as (typeof call.events)[0]);
  assert.throws(() => world.machine.publish({ ...call, events: three }), { kind: "invalid", field: "events" });
  world.settle();
  world.publish("s.x", "3");
  world.settle();
  assert.deepEqual(ids(world), ["1", "2", "3"]);
});

test("a hub that cannot store now is tried again after its delay, and nothing behind is written before", () => {
  const world = new World();
  up(world);
  world.hub.refuses = status(CODE.UNAVAILABLE, "ENGINE_UNAVAILABLE", 3000);
  const first = world.publish("s.x", "1");
  world.turn();
  world.hubReads();
  world.clientReads();
  const second = world.publish("s.x", "2");
  assert(!world.machine.hasWrites(world.now));
  assert.equal(world.machine.turn(world.now).wakeAt, world.now + 3000);
  world.hub.refuses = undefined;
  world.settle(200);
  assert.deepEqual([sequence(world, first), sequence(world, second)], [1, 2]);
});

test("an expired token is no outcome where a fresh one can come", () => {
  for (const hasSource of [true, false]) {
    const world = new World({ hasSource });
    up(world);
    world.hub.refuses = status(CODE.UNAUTHENTICATED, "CREDENTIAL_EXPIRED");
    const ticket = world.publish("s.x", "1");
    world.turn();
    world.hubReads();
    world.clientReads();
    world.hub.refuses = undefined;
    world.settle();
    if (hasSource) {
      assert.equal(sequence(world, ticket), 1);
    } else {
      assert.deepEqual(failure(world, ticket), ["refused", "CREDENTIAL_EXPIRED"]);
    }
  }
});

test("one bad call does not fail those that were written with it", () => {
  const world = new World();
  world.hub.refuses = status(CODE.INVALID_ARGUMENT, "MALFORMED_COMMAND");
  const [bad, good] = [world.publish("s.x", "1"), world.publish("s.x", "2")];
  up(world);
  world.turn();
  world.hubReads();
  world.clientReads();
  assert.equal(world.results.size, 0, "together they were refused: each is tried alone");
  world.turn(1);
  world.hubReads();
  world.hub.refuses = undefined;
  world.clientReads();
  world.settle();
  assert.deepEqual(failure(world, bad), ["refused", "MALFORMED_COMMAND"]);
  assert.equal(sequence(world, good), 1);
});

test("an event that no frame can hold is refused here, and costs no session", () => {
  const world = new World();
  const large = world.publishAll([{ topic: "s.x", id: "1", text: "x".repeat(5 << 20) }]);
  const other = world.publish("s.x", "2");
  world.settle();
  assert.deepEqual(failure(world, large), ["refused", "EVENT_TOO_LARGE"]);
  assert.equal(sequence(world, other), 1);
  assert.deepEqual([world.hub.sessions, world.state], [1, "up"]);
});

test("deadlines of what is done are not remembered", () => {
  const world = new World();
  up(world);
  for (let number = 1; number <= 1000; number += 1) {
    world.publish("s.x", String(number));
    world.turn();
    world.hubReads();
    world.clientReads();
  }
  const { deadlines } = (world.machine as unknown as { publishes: { deadlines: { size: number } } }).publishes;
  assert(deadlines.size <= 66, String(deadlines.size));
});

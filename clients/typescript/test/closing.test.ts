// The end of a client: in order, in time, and with what was left.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SwitchyardError } from "../src/error.js";
import { Machine } from "../src/machine/machine.js";
import { ACK } from "../src/machine/verdict.js";
import { type Held, setup, STREAM, World } from "./world.js";

const TIMEOUT = 20_000;
const NOTHING_LEFT = { clean: true, events: 0, acknowledgements: 0, unknownPublishes: 0, unsentPublishes: 0 };

/** Turns until the client half-closes or is over; the hub then ends the session. */
function runDown(world: World): void {
  for (let turns = 0; turns < 100; turns += 1) {
    if (!world.isConnected) {
      if (world.machine.plan(world.now).to === "stop") {
        break;
      }
      world.pass(20);
      continue;
    }
    world.turn();
    world.hubReads();
    world.clientReads();
    if (world.isHalfClosed) {
      world.cut();
    }
    world.pass(20);
  }
  world.hearNews();
}

function withAnEventInHand(world: World): { id: number; event: Held } {
  const id = world.subscribe({ stream: STREAM, group: "g", from: "earliest" });
  world.publish("s.x", "1");
  world.publish("s.x", "2");
  world.settle();
  const [event, other] = world.takeAll(id) as [Held, Held];
  assert(world.settleEvent(id, other, ACK));
  return { id, event };
}

test("a drain waits for what the application has, and flushes what it says", () => {
  const world = new World();
  const { id, event } = withAnEventInHand(world);
  const unsent = world.publish("s.x", "3");
  world.machine.drain(world.now, "finish", TIMEOUT);
  assert.equal(world.state, "closing");
  assert.throws(() => world.subscribe({ filters: ["x"] }), { kind: "closed" });
  runDown(world);
  assert.equal(world.state, "closing", "an event is in hand");
  assert(world.results.has(unsent), "publishes do not wait for that");
  assert.equal(world.takeEvents(id), undefined);
  assert.deepEqual(world.machine.table.takeEnd(id), { error: undefined });
  assert(world.settleEvent(id, event, ACK));
  runDown(world);
  assert.deepEqual([world.state, world.machine.left], ["closed", NOTHING_LEFT]);
  assert.equal(world.hub.done.size, 2);
});

test("a drain that releases waits for no handler", () => {
  const world = new World();
  const { id, event } = withAnEventInHand(world);
  world.machine.drain(world.now, "release", TIMEOUT);
  assert(!world.settleEvent(id, event, ACK), "it is given back");
  runDown(world);
  assert.deepEqual([world.state, world.machine.left], ["closed", NOTHING_LEFT]);
  assert.equal(world.hub.done.size, 1, "what was said before is stored");
  assert(world.hub.told.every((told) => told.outcome === "ACK_OUTCOME_ACK"), "nothing is said of it");
});

test("a drain waits for batches whose place is kept, and for no others", () => {
  const position = { load: () => Promise.resolve(undefined), keep: () => Promise.resolve() };
  for (const isKept of [true, false]) {
    const world = new World();
    const id = world.subscribe({ stream: STREAM, from: "earliest", ...(isKept && { position }) });
    world.publish("s.x", "1");
    world.settle();
    const some = world.takeEvents(id);
    world.machine.drain(world.now, "finish", TIMEOUT);
    runDown(world);
    assert.equal(world.state, isKept ? "closing" : "closed");
    world.machine.table.finishBatch(world.now, id, some?.batch ?? 0, world.machine.news);
    runDown(world);
    assert.equal(world.state, "closed");
  }
});

test("a drain ends in time, and says what was left", () => {
  const world = new World();
  withAnEventInHand(world);
  world.cut();
  world.connect();
  world.clientReads(1);
  const written = world.publish("s.x", "3");
  world.turn();
  const unsent = world.publish("s.x", "4");
  world.machine.drain(world.now, "finish", TIMEOUT);
  world.pass(TIMEOUT);
  world.turn(0);
  world.hearNews();
  assert.equal(world.state, "closed");
  const left = { clean: false, events: 1, acknowledgements: 1, unknownPublishes: 1, unsentPublishes: 1 };
  assert.deepEqual(world.machine.left, left);
  const kind = (ticket: number): string | undefined => {
    const result = world.results.get(ticket)?.[0];
    return result instanceof SwitchyardError ? result.kind : undefined;
  };
  assert.deepEqual([kind(written), kind(unsent)], ["unknown", "closed"]);
});

test("a drain without a session ends at once when nothing is left, and comes back when something is", () => {
  const idle = new World();
  idle.machine.drain(idle.now, "finish", TIMEOUT);
  assert.deepEqual(idle.machine.plan(idle.now), { to: "stop", error: undefined });

  const world = new World();
  const ticket = world.publish("s.x", "1");
  world.machine.drain(world.now, "finish", TIMEOUT);
  world.connect();
  assert(world.isConnected, "there is something to flush");
  runDown(world);
  assert(!(world.results.get(ticket)?.[0] instanceof SwitchyardError));
  assert.equal(world.state, "closed");
});

test("a drain while it waits or connects ends that", () => {
  const waiting = new World();
  waiting.connect();
  waiting.cut();
  waiting.machine.drain(waiting.now, "finish", TIMEOUT);
  assert.equal(waiting.machine.plan(waiting.now).to, "stop");

  const world = new World();
  assert.equal(world.machine.plan(world.now).to, "open");
  assert(world.machine.opening(world.now) !== undefined);
  world.machine.drain(world.now, "finish", TIMEOUT);
  assert.equal(world.machine.opening(world.now), undefined);
});

test("a hub that does not end the session is not waited for, nor checked over and over", () => {
  const world = new World();
  world.subscribe({ filters: ["x"] });
  world.settle();
  world.machine.drain(world.now, "finish", TIMEOUT);
  for (let turns = 0; turns < 5 && !world.isHalfClosed; turns += 1) {
    world.turn();
    world.hubReads();
    world.clientReads();
    world.pass(20);
  }
  const { wakeAt } = world.machine.turn(world.now);
  assert(wakeAt > world.now + 900 && wakeAt <= world.now + 1000, "nothing but the hub can do anything");
  world.pass(1000);
  world.turn();
  assert(!world.isConnected);
  assert.equal(world.state, "closed");
});

test("a client that nobody runs is over as soon as it is drained", () => {
  const machine = new Machine({ ...setup(), addresses: ["http://hub"] });
  machine.drain(0, "finish", TIMEOUT);
  assert.equal(machine.status.state, "closed");
});

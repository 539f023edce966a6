// Members of groups: what they hold, what becomes of what they say, and how they come back after their connection was cut.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ACK, type Verdict } from "../src/machine/verdict.js";
import { CODE, type Held, sequencesOf, STREAM, status, World } from "./world.js";

const NACK: Verdict = { is: "nack", delay: undefined, reason: "no paper" };
const NOTHING_LOST = { sequences: [], count: 0 };

function member(world: World, window: number): number {
  return world.subscribe({ stream: STREAM, group: "g", from: "earliest", window });
}

function publish(world: World, count: number): void {
  for (let number = 1; number <= count; number += 1) {
    world.publish("s.x", String(number));
  }
  world.settle();
}

/** A world with one member that has taken so many events, in which the hub waits for it if it is cut. */
function worldWith(count: number): { world: World; id: number; events: Held[] } {
  const world = new World();
  world.hub.keeps = true;
  const id = member(world, count + 2);
  publish(world, count);
  const events = world.takeAll(id);
  assert.equal(events.length, count);
  return { world, id, events };
}

/** Until the hub has answered `subscribe`, and the client has written nothing since. */
function comeBack(world: World): void {
  world.connect();
  world.clientReads(1);
  world.turn(2);
  world.hubReads(2);
  world.clientReads(1);
}

/** What the last `subscribe` says that is held; `undefined` if it does not say. */
function named(world: World): number[] | undefined {
  return world.hub.subscribes.at(-1)?.reattach?.heldSequences?.map(Number);
}

test("no more than the window is held, and what is settled makes room", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 12);
  const events = world.takeAll(id);
  assert.deepEqual(sequencesOf(events), [1, 2, 3, 4]);
  world.settle();
  assert.deepEqual(world.takeAll(id), [], "taken is not settled");
  let done = 0;
  for (let event = events.pop(); event !== undefined; event = events.pop()) {
    assert(world.settleEvent(id, event, ACK));
    done += 1;
    world.settle();
    events.push(...world.takeAll(id));
    assert(events.length <= 4);
  }
  assert.deepEqual([done, world.hub.done.size], [12, 12]);
});

test("an event in hand does not come again when its lease was lost, and its word holds", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 2);
  const events = world.takeAll(id);
  world.cut();
  world.settle();
  assert.deepEqual(world.takeAll(id), [], "the hub sent them again, to nobody");
  assert.equal(world.held, 2);
  events.forEach((event) => assert(world.settleEvent(id, event, ACK)));
  world.settle();
  assert.deepEqual([world.hub.done.size, world.held], [2, 0]);
});

test("what was not taken goes back with its session", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 2);
  world.cut();
  assert.deepEqual(world.takeAll(id), []);
  assert.equal(world.held, 0);
  world.settle();
  assert.deepEqual(sequencesOf(world.takeAll(id)), [1, 2]);
});

test("what was said and not answered is said again, and done once", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 3);
  const [first, second, third] = world.takeAll(id) as [Held, Held, Held];
  // One was said and heard, but the answer is lost; one was said and not heard; one is said while there is no session.
  assert(world.settleEvent(id, first, ACK));
  world.turn();
  world.hubReads();
  assert(world.settleEvent(id, second, ACK));
  world.turn();
  world.cut();
  assert(world.settleEvent(id, third, ACK));
  world.settle();
  assert.deepEqual(world.takeAll(id), [], "nothing is done twice");
  assert.deepEqual([world.hub.done.size, world.machine.table.totals().unanswered], [3, 0]);
});

test("whoever waits hears that the lease is lost, and then the event comes again", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 1);
  const [event] = world.takeAll(id) as [Held];
  world.cut();
  const ticket = world.settleAndWait(id, event, ACK);
  world.connect();
  // The acknowledgement is there before the hub sends the event again.
  for (let turns = 0; turns < 4; turns += 1) {
    world.turn();
    world.hubReads();
    world.clientReads();
  }
  const error = world.settled.get(ticket);
  assert.deepEqual([error?.kind, error?.reason], ["leaseLost", "LEASE_EXPIRED"]);
  world.settle();
  const again = world.takeAll(id);
  assert.deepEqual(sequencesOf(again), [1]);
  assert(!world.settleEvent(id, event, ACK), "the first copy is nothing any more");
  assert(world.settleEvent(id, again[0] as Held, ACK));
  world.settle();
  assert.equal(world.hub.done.size, 1);
});

test("lost leases are told to whoever asks, and their events come again", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 2);
  const events = world.takeAll(id);
  world.cut();
  events.forEach((event) => assert(world.settleEvent(id, event, ACK)));
  const mark = world.machine.table.mark(id);
  assert.equal(world.machine.table.settled(id, mark), undefined, "nothing is answered");
  world.connect();
  for (let turns = 0; turns < 4; turns += 1) {
    world.turn();
    world.hubReads();
    world.clientReads();
  }
  assert.deepEqual(world.machine.table.settled(id, mark), { sequences: [1n, 2n], count: 2 });
  world.settle();
  assert.deepEqual(sequencesOf(world.takeAll(id)), [1, 2]);
});

test("a nack brings the event again, and one that is moot is forgotten", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 1);
  const [first] = world.takeAll(id) as [Held];
  assert(world.settleEvent(id, first, NACK));
  world.settle();
  const [second] = world.takeAll(id) as [Held];
  assert.notEqual(first[1], second[1]);
  // The session is lost: the event comes again by itself, and the nack must not hit its new lease.
  world.cut();
  world.connect();
  world.clientReads(1);
  world.turn();
  world.hubReads();
  world.hub.send();
  assert(world.settleEvent(id, second, NACK));
  world.clientReads();
  const third = world.takeAll(id);
  assert.deepEqual(sequencesOf(third), [1]);
  assert(world.settleEvent(id, third[0] as Held, ACK));
  world.settle();
  assert.equal(world.hub.done.size, 1);
  assert.deepEqual(world.takeAll(id), []);
  assert.deepEqual(world.machine.table.settled(id, world.machine.table.mark(id)), NOTHING_LOST);
});

test("an event that is dropped makes room, and nothing is said of it", () => {
  const world = new World();
  const id = member(world, 1);
  publish(world, 2);
  world.letGo(id, world.takeAll(id)[0] as Held);
  world.settle();
  assert.equal(world.hub.done.size, 0);
  assert.deepEqual(sequencesOf(world.takeAll(id)), [2], "the lease on 1 has to run out first");
});

test("words that the hub cannot store now are said again", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 1);
  assert(world.settleEvent(id, world.takeAll(id)[0] as Held, ACK));
  world.turn();
  world.hubReads();
  const answer = world.hub.out.pop();
  const results = [{ sequence: "1", status: status(CODE.UNAVAILABLE, "ENGINE_UNAVAILABLE") }];
  world.hear({ requestId: answer?.requestId ?? 0, acknowledged: { subscriptionId: String(id), results } });
  assert.equal(world.machine.table.totals().unanswered, 1);
  assert((world.machine.table.due() ?? 0) > world.now);
  world.settle();
  assert.equal(world.machine.table.totals().unanswered, 0);
});

test("leases are extended together, and only of what is in hand", () => {
  const world = new World();
  const id = member(world, 4);
  publish(world, 3);
  const events = world.takeAll(id);
  events.forEach((event) => world.extend(id, event));
  assert(world.settleEvent(id, events[0] as Held, ACK));
  world.extend(id, events[0] as Held);
  world.turn(1);
  world.turn(1);
  world.hubReads();
  const answers = world.hub.out.splice(0).flatMap((frame) => frame.acknowledged?.results?.length ?? []);
  assert.deepEqual(answers, [1, 2], "one acknowledgement, then both extensions in one command");
});

test("a member names what it has and what it has said, and the rest comes again", () => {
  const { world, id, events } = worldWith(4);
  const [first, second, third, fourth] = events as [Held, Held, Held, Held];
  assert.equal(named(world), undefined, "it was nowhere before");
  // 1 is said and heard, 2 is said and not heard, 3 is said while there is no session, 4 is in hand.
  world.publish("s.x", "5");
  world.publish("s.x", "6");
  world.settle();
  assert(world.settleEvent(id, first, ACK));
  world.turn();
  world.hubReads();
  assert(world.settleEvent(id, second, ACK));
  world.turn();
  world.cut();
  assert(world.settleEvent(id, third, NACK));
  comeBack(world);
  assert.deepEqual(named(world), [1, 2, 3, 4]);
  world.settle();
  // 5 and 6 came and were not taken, and 3 comes again because of what was said of it.
  assert.deepEqual(sequencesOf(world.takeAll(id)), [3, 5, 6]);
  assert(world.settleEvent(id, fourth, ACK), "it is still in hand");
  world.settle();
  assert.deepEqual([...world.hub.done].sort(), [1, 2, 4]);
  assert.deepEqual(world.hub.leases.sequences(), [3, 5, 6]);
  assert.deepEqual(world.machine.table.settled(id, world.machine.table.mark(id)), NOTHING_LOST);
});

test("only members that acknowledge say what they hold, and they say so if that is nothing", () => {
  const world = new World();
  world.subscribe({ stream: STREAM });
  world.subscribe({ stream: STREAM, group: "g", doneWhenSent: true });
  world.subscribe({ filters: ["a"] });
  world.settle();
  world.cut();
  world.settle();
  assert.equal(world.hub.subscribes.length, 6);
  assert(world.hub.subscribes.every((spec) => spec.reattach === undefined));
  member(world, 4);
  world.settle();
  world.cut();
  world.settle();
  assert.deepEqual(named(world), []);
});

test("whoever waits hears of a lost lease as soon as the member is back, and of one that is done that it is", () => {
  const { world, id, events } = worldWith(3);
  const [first, second, third] = events as [Held, Held, Held];
  world.hub.keeps = false;
  const done = world.settleAndWait(id, first, ACK);
  world.turn();
  world.hubReads();
  world.cut();
  const lost = world.settleAndWait(id, second, ACK);
  const said = world.hub.told.length;
  comeBack(world);
  assert.equal(world.hub.told.length, said, "nothing had to be asked");
  assert.equal(world.settled.get(lost)?.kind, "leaseLost");
  assert(!world.settled.has(done), "the hub is asked, which knows");
  world.settle();
  assert(world.settled.has(done) && world.settled.get(done) === undefined);
  // What was lost in hand is nobody's: it has come again, and what is said of it holds. The other one is to be done again.
  assert.deepEqual(sequencesOf(world.takeAll(id)), [2]);
  assert(world.settleEvent(id, third, ACK));
  world.settle();
  assert(world.hub.done.has(3));
});

test("an older hub that does not say what it kept is asked", () => {
  for (const keeps of [true, false]) {
    const { world, id, events } = worldWith(2);
    world.hub.isOld = true;
    world.hub.keeps = keeps;
    world.cut();
    const ticket = world.settleAndWait(id, events[0] as Held, ACK);
    comeBack(world);
    assert(!world.settled.has(ticket));
    for (let turns = 0; turns < 3; turns += 1) {
      world.turn();
      world.hubReads();
      world.clientReads();
    }
    assert.equal(world.settled.has(ticket) && world.settled.get(ticket) === undefined, keeps);
    assert(world.settleEvent(id, events[1] as Held, ACK));
    world.settle();
    assert(world.hub.done.has(2));
  }
});

test("a session that is lost before its members are back is not the one they come from", () => {
  const { world, id, events } = worldWith(2);
  for (let losses = 0; losses < 3; losses += 1) {
    world.cut();
    world.connect();
    // It is up, and nothing that it writes arrives.
    world.clientReads(1);
    world.turn();
    world.hubReads(1);
  }
  world.cut();
  world.settle();
  const previous = world.hub.hellos.map((hello) => hello.previousSessionId);
  assert.deepEqual(previous, [undefined, "session-1", "session-1", "session-1", "session-1"]);
  const ticket = world.settleAndWait(id, events[0] as Held, ACK);
  assert(world.settleEvent(id, events[1] as Held, ACK));
  world.settle();
  assert(world.settled.has(ticket) && world.settled.get(ticket) === undefined, "its lease was kept over all of them");
  world.cut();
  world.settle();
  assert.equal(world.hub.hellos.at(-1)?.previousSessionId, "session-5");
});

test("an extension that was not answered is asked for again if the event is still in hand", () => {
  const { world, id, events } = worldWith(3);
  const times: [number, number | undefined][] = [
    [0, undefined],
    [1, 60_000],
    [2, 60_000],
    [1, 90_000],
  ];
  for (const [at, time] of times) {
    world.extend(id, events[at] as Held, time);
    world.turn();
  }
  assert(world.settleEvent(id, events[2] as Held, ACK));
  world.cut();
  world.hub.told = [];
  world.settle();
  const extends_ = world.hub.told.filter((told) => told.outcome === "ACK_OUTCOME_EXTEND");
  const said = extends_.map((told) => [told.sequences?.[0], told.delay]).sort();
  assert.deepEqual(said, [
    ["1", undefined],
    ["2", "90s"],
  ]);
});

test("a nack that was stored is not said again, although its answer was lost", () => {
  const { world, id, events } = worldWith(1);
  assert(world.settleEvent(id, events[0] as Held, NACK));
  world.turn();
  world.hubReads();
  world.hub.send();
  // The event is here again, and the answer is not.
  world.hub.out = world.hub.out.filter((frame) => frame.acknowledged === undefined);
  world.clientReads();
  world.cut();
  assert.equal(world.machine.table.totals().unanswered, 0);
  world.settle();
  assert(world.settleEvent(id, world.takeAll(id)[0] as Held, ACK));
  world.settle();
  const nacks = world.hub.told.filter((told) => told.outcome === "ACK_OUTCOME_NACK");
  assert.deepEqual([nacks.length, world.hub.done.size], [1, 1]);
});

test("an event that comes again while its word is on its way is done by that word", () => {
  const { world, id, events } = worldWith(1);
  const ticket = world.settleAndWait(id, events[0] as Held, ACK);
  world.turn();
  // The lease runs out before the word arrives, and the new one is here before the answer.
  world.hub.leases.holders.delete(1);
  world.hubReads();
  world.hub.send();
  world.hub.out.reverse();
  world.clientReads();
  assert(!world.settled.has(ticket));
  world.settle();
  assert(world.settled.has(ticket) && world.settled.get(ticket) === undefined);
  assert.deepEqual(world.takeAll(id), []);
  assert.equal(world.hub.done.size, 1);
});

test("a member that nobody reads leaves as soon as its last word is lost", () => {
  const { world, id, events } = worldWith(1);
  world.hub.keeps = false;
  world.cut();
  const ticket = world.settleAndWait(id, events[0] as Held, ACK);
  world.machine.table.abandon(world.now, id, world.machine.news);
  world.settle();
  assert.equal(world.settled.get(ticket)?.kind, "leaseLost");
  assert.deepEqual([world.machine.table.totals().subscriptions, world.hub.subs.size], [0, 0]);
});

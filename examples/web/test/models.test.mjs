/** What the pages keep, without a browser and without a hub. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Prices, spark } from "../board/prices.js";
import { History, MOST_KEPT } from "../chat/history.js";
import { People } from "../chat/people.js";
import { LONGEST, Strokes, read, write } from "../draw/strokes.js";

const event = (topic, sequence, more = {}) => ({
  topic,
  sequence: BigInt(sequence),
  appendTime: new Date(1_000_000),
  attributes: {},
  wire: { event: { ttl: more.ttl } },
  ...more,
});
const message = (id, sequence, text = id) => event(`chat.messages.lobby.ada.${id}`, sequence, { type: "chat.message", text });
const recall = (id, sequence, sent) => event(`chat.messages.lobby.ada.${id}`, sequence, { type: "chat.recall", attributes: { sent } });
const told = (history) => history.entries.map(({ state, text }) => (state === "recalled" ? "-" : text));

test("a history has each message once and in the order of the stream, however often it comes", () => {
  const history = new History();
  history.send({ topic: "chat.messages.lobby.ada.c", user: "ada", name: "Ada", time: new Date(), text: "c", picture: null });
  for (const one of [message("a", 1), message("b", 3), message("a", 1), message("b", 3)]) history.take(one);
  assert.deepEqual(told(history), ["a", "b", "c"]);
  assert.equal(history.entries[2].state, "waiting");
  history.take(message("c", 2));
  assert.deepEqual(told(history), ["a", "c", "b"]);
  assert.equal(history.fail("chat.messages.lobby.ada.c", "too late"), null);
});

test("a recall takes the place of its message, whether that was seen or not", () => {
  const [early, late] = [new History(), new History()];
  for (const one of [message("a", 1), message("b", 2), message("c", 3), recall("b", 4, "2")]) early.take(one);
  for (const one of [message("a", 1), message("c", 3), recall("b", 4, "2")]) late.take(one);
  assert.deepEqual(told(early), ["a", "-", "c"]);
  assert.deepEqual(told(late), ["a", "-", "c"]);
  // A place that cannot be is not believed.
  const lied = new History();
  for (const one of [message("a", 1), recall("b", 2, "99"), recall("c", 3, "-1"), recall("d", 4, "x")]) lied.take(one);
  assert.deepEqual(lied.entries.map(({ place }) => place), [1, 2, 3, 4]);
});

test("what is kept has a limit, and what is no message is not kept", () => {
  const history = new History();
  for (let n = 1; n <= MOST_KEPT; n += 1) history.take(message(`m${n}`, n));
  assert.equal(history.trim().length, 0);
  history.take(message("one", MOST_KEPT + 1));
  assert.deepEqual(history.trim().map(({ text }) => text), ["m1"]);
  assert.equal(history.entries.length, MOST_KEPT);
  for (const topic of ["chat", "chat.messages.lobby", "chat.rooms.x", "chat.messages.a.b.c.d"]) {
    assert.equal(history.take(event(topic, 9999, { type: "chat.message", text: "x" })), null);
  }
  assert.equal(history.take(event("chat.messages.lobby.ada.z", 9999, { type: "other", text: "x" })), null);
});

test("people are here for their ttl, by whatever clocks", () => {
  const here = (user, stored, ttl = "4s", type = "chat.here") =>
    event(`chat.here.lobby.${user}.t1`, 1, { type, ttl, wire: { event: { ttl } }, attributes: { name: user }, appendTime: new Date(stored) });
  const people = new People();
  const names = () => people.of("lobby").map(({ name }) => name);
  // The clock of this page is 10 s ahead; an event that was stored 3 s ago comes first.
  people.take(here("ada", 1000), 14_000);
  people.take(here("bob", 4000), 14_000);
  people.take(here("ada", 1000), 14_000);
  assert.deepEqual(names(), ["ada", "bob"]);
  assert.equal(people.sweep(14_999), false);
  assert.equal(people.sweep(15_000), true);
  assert.deepEqual(names(), ["bob"]);
  people.take(here("bob", 4000, "1s", "chat.left"), 15_000);
  assert.deepEqual(names(), []);
  people.take(here("eve", 5000, "99999999s"), 15_000);
  assert.equal(people.sweep(15_000 + 10 * 60_000), true);
});

test("strokes are the same whatever is cleared and taken back, and what is none is not drawn", () => {
  const stroke = (id, sequence, text = write({ colour: 1, width: 8, points: [10, 10, 20, 30] })) =>
    event(`draw.strokes.main.ada.${id}`, sequence, { type: "draw.stroke", text });
  const strokes = new Strokes();
  assert.deepEqual(strokes.take(stroke("a", 1)).added.points, [10, 10, 20, 30]);
  assert.deepEqual(strokes.take(stroke("a", 1)), {});
  assert.ok(strokes.take(stroke("b", 2)).added);
  assert.deepEqual(strokes.take(event("draw.strokes.main.ada.a", 3, { type: "draw.undo" })), { redraw: true });
  assert.deepEqual(strokes.all().map(({ topic }) => topic), ["draw.strokes.main.ada.b"]);
  assert.deepEqual(strokes.take(event("draw.cleared.main", 5)), { redraw: true });
  assert.deepEqual(strokes.take(stroke("c", 4)), {});
  assert.deepEqual(strokes.all(), []);
  const longest = Array.from({ length: LONGEST + 2 }, (_, n) => n);
  assert.ok(read({ type: "draw.stroke", text: write({ colour: 0, width: 1, points: longest }) }));
  for (const text of ["", "null", "[]", "{}", '{"c":9,"w":8,"p":[1,1]}', '{"c":1,"w":8,"p":[1]}', '{"c":1,"w":8,"p":["x",1]}', '{"c":1,"w":1e9,"p":[1,1]}', write({ colour: 0, width: 1, points: [...longest, 1, 1] })]) {
    assert.equal(read({ type: "draw.stroke", text }), null, text.slice(0, 40));
  }
});

test("prices are numbers, and a sparkline stays in its box", () => {
  const prices = new Prices();
  assert.equal(prices.take(event("stocks.A", 0, { text: '{"date": "Jan 1 2000", "price": "12.50"}' })), true);
  for (const text of [undefined, "", "{}", "12", '{"price": "much"}', "null"]) assert.equal(prices.take(event("stocks.A", 0, { text })), false);
  const [share, ...more] = prices.changed();
  assert.deepEqual([share.symbol, share.month, share.points, more], ["A", "Jan 1 2000", [12.5], []]);
  assert.deepEqual(prices.changed(), []);
  assert.deepEqual(spark([1], 100, 50), { line: "", area: "" });
  assert.equal(spark([1, 3, 2], 100, 50).line, "M0.0 47.0L50.0 3.0L100.0 25.0");
  assert.equal(spark([5, 5], 100, 50).line, "M0.0 47.0L100.0 47.0");
});

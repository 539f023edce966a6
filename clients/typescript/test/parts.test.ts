// The parts of the machine that the world of it cannot show: limits, and books that must always be right.

import assert from "node:assert/strict";
import { test } from "node:test";

import { failure } from "../src/error.js";
import { Addresses, MAX_NAMED_BYTES, MOST_LEARNED } from "../src/machine/addresses.js";
import { Backoff } from "../src/machine/backoff.js";
import { Ledger, NOTHING } from "../src/machine/credit.js";
import { Hands, MOST_EXTENDING, MOST_LOST, MOST_NAMED, MOST_SEQUENCES } from "../src/machine/hands.js";
import { Heap } from "../src/machine/heap.js";
import { Home } from "../src/machine/home.js";
import { type GapReason, merged, MOST_GAPS, Queue } from "../src/machine/incoming.js";
import { Losses, MOST_REASONS } from "../src/machine/losses.js";
import type { News } from "../src/machine/news.js";
import { MOST_OWED, Owed } from "../src/machine/owed.js";
import { MOST_OPEN, Place } from "../src/machine/place.js";
import { MAX_TOKEN_BYTES, Refresh } from "../src/machine/refresh.js";
import { Tickets } from "../src/machine/tickets.js";
import { ACK, acknowledgement, MAX_REASON_BYTES } from "../src/machine/verdict.js";
import { seeded } from "./world.js";

const upTo = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

// Backoff.

test("the ceiling of waits doubles up to the longest and stays there, and all below it is used", () => {
  const backoff = new Backoff(100, 5000, seeded(1));
  const waits = upTo(1000).map((_, at) => {
    const wait = backoff.next();
    assert(wait <= Math.min(100 * 2 ** at, 5000));
    return wait;
  });
  for (let tenth = 0; tenth < 10; tenth += 1) {
    const within = waits.slice(10).filter((wait) => wait >= tenth * 500 && wait < (tenth + 1) * 500);
    assert(within.length > 50 && within.length < 200, `${within.length} waits from ${tenth * 500} ms`);
  }
  assert(upTo(100).some(() => backoff.next(30_000) > 5000), "another longest wait, this once");
  backoff.reset();
  assert(backoff.next() <= 100);
});

// Addresses.

const hubs = (from: number, to: number): string[] => upTo(to - from).map((at) => `http://hub-${from + at - 1}`);

function round(addresses: Addresses, count: number): string[] {
  return upTo(count).map(() => {
    const current = addresses.current();
    addresses.next();
    return current;
  });
}

test("clients begin with different addresses, and go on with different ones", () => {
  for (const given of [3, 1]) {
    const seen = upTo(100).map((seed) => {
      const addresses = new Addresses(hubs(0, given), seeded(seed));
      addresses.learn(hubs(0, 3));
      return round(addresses, 2)[given === 1 ? 1 : 0];
    });
    assert.equal(new Set(seen).size, given === 1 ? 2 : 3);
  }
});

test("no more addresses are learned than the limit, and the oldest make room but never the current one", () => {
  const addresses = new Addresses(hubs(0, 2), seeded(0));
  for (const hub of hubs(2, MOST_LEARNED + 2)) {
    addresses.learn([hub]);
  }
  assert.deepEqual(round(addresses, MOST_LEARNED + 2).slice(2), hubs(2, MOST_LEARNED + 2));
  addresses.next();
  addresses.next();
  addresses.learn(hubs(MOST_LEARNED + 2, MOST_LEARNED + 3));
  assert.deepEqual([addresses.count, addresses.current()], [MOST_LEARNED + 2, "http://hub-2"], "3 has made room");
  const all = round(addresses, MOST_LEARNED + 2);
  assert(!all.includes("http://hub-3") && all.includes("http://hub-0") && all.includes("http://hub-1"));
});

test("what no hub may name is ignored, and nobody is led away from TLS", () => {
  const long = (bytes: number): string => `http://${"x".repeat(bytes - "http://".length)}`;
  const addresses = new Addresses(["http://hub-0"], seeded(0));
  addresses.learn(["", "hub-1", "ftp://hub", long(MAX_NAMED_BYTES + 1)]);
  assert.equal(addresses.count, 1);
  addresses.learn([long(MAX_NAMED_BYTES), "https://hub-2"]);
  assert.equal(addresses.count, 3);
  const safe = new Addresses(["https://hub-0"], seeded(0));
  safe.learn(["http://hub-1", "https://hub-2"]);
  assert.deepEqual(round(safe, 2), ["https://hub-0", "https://hub-2"]);
});

// Credit.

test("the window is never exceeded, and never stalls", () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const random = seeded(seed);
    const pick = (from: number, to: number): number => from + Math.floor(random() * (to - from));
    const window = { events: pick(1, 20), bytes: pick(1, 2000) };
    const ledger = new Ledger(window);
    // The hub's side of it, as the contract has it.
    let hub = { events: 0, bytes: 0, counts: false };
    const grant = (more: { events: number; bytes: number }): void => {
      assert(more.events > 0 || more.bytes > 0, "a grant of nothing is refused");
      assert(hub.counts || (more.events > 0 && more.bytes > 0), "the hub would not count what is not named");
      hub = { events: hub.events + more.events, bytes: hub.bytes + more.bytes, counts: true };
    };
    const begin = (): void => {
      hub = { events: 0, bytes: 0, counts: false };
      const first = ledger.begin();
      if (first.events > 0 || first.bytes > 0) {
        grant(first);
      }
    };
    begin();
    const held: number[] = [];
    for (let step = 0; step < 400; step += 1) {
      const kind = random();
      const bytes = pick(1, 500);
      const maySend = hub.events > 0 && hub.bytes > 0;
      if (kind < 0.1) {
        begin();
      } else if (kind < 0.5 && maySend) {
        assert(held.length < window.events);
        assert(held.reduce((sum, one) => sum + one, 0) < window.bytes, "more than one event over the window");
        hub.events -= 1;
        hub.bytes -= bytes;
        ledger.arrived(1, bytes);
        held.push(bytes);
      } else {
        const out = held.pop();
        if (out !== undefined) {
          ledger.returned(1, out);
        }
      }
      const more = ledger.grant();
      if (more !== undefined) {
        grant(more);
      }
      assert(held.length > 0 || (hub.events > 0 && hub.bytes > 0), "nothing is in hand, and nothing may come");
    }
  }
});

test("a session that begins with a full window grants nothing until both units have room", () => {
  const ledger = new Ledger({ events: 2, bytes: 100 });
  ledger.begin();
  ledger.arrived(1, 90);
  ledger.arrived(1, 90);
  assert(ledger.isFull());
  // With an event but no bytes named, the hub would not count the bytes.
  assert.deepEqual(ledger.begin(), NOTHING);
  ledger.returned(1, 10);
  assert.equal(ledger.grant(), undefined, "one event, no bytes");
  ledger.returned(0, 80);
  assert.deepEqual(ledger.grant(), { events: 1, bytes: 10 });
});

test("credit goes back in large pieces, and a window of one is refilled by every event", () => {
  const ledger = new Ledger({ events: 100, bytes: 100_000 });
  ledger.begin();
  let grants = 0;
  for (let events = 0; events < 1000; events += 1) {
    ledger.arrived(1, 10);
    ledger.returned(1, 10);
    grants += ledger.grant() === undefined ? 0 : 1;
  }
  assert(grants <= 21, `${grants} grants for 1000 events`);
  const one = new Ledger({ events: 1, bytes: 10 });
  assert.deepEqual(one.begin(), { events: 1, bytes: 10 });
  one.arrived(1, 25);
  assert.equal(one.grant(), undefined, "in hand");
  one.returned(1, 25);
  assert.deepEqual(one.grant(), { events: 1, bytes: 25 }, "the overdraft too");
});

// The place.

test("everything up to the place is done, in whatever order it is", () => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const random = seeded(seed);
    const place = new Place();
    const batches = upTo(30).map((at) => place.arrived(String(at - 1)));
    const done = new Set<number>();
    const order = batches.map((batch) => ({ batch, key: random() })).sort((one, other) => one.key - other.key);
    for (const { batch } of order) {
      place.finish(batch);
      done.add(batch);
      const firstOpen = batches.find((one) => !done.has(one)) ?? 30;
      assert.equal(place.done, firstOpen === 0 ? undefined : String(firstOpen - 1));
    }
  }
});

test("what was passed over counts when nothing is in hand", () => {
  const place = new Place("0");
  place.passed("1");
  assert.equal(place.done, "1");
  const batch = place.arrived("2");
  place.passed("3");
  place.passed("");
  assert.deepEqual([place.reached, place.done], ["3", "1"]);
  place.finish(batch);
  assert.equal(place.done, "3");
});

test("the place stays before a batch that was dropped", () => {
  const place = new Place();
  const [first, second, third] = [place.arrived("1"), place.arrived("2"), place.arrived("3")];
  place.dropBatch(second);
  place.passed("4");
  [first, third, place.arrived("5")].forEach((batch) => place.finish(batch));
  assert.deepEqual([place.reached, place.done, place.openCount], ["5", "1", 0]);
});

test("batches that are never done make no list without an end, and none of them is passed", () => {
  const place = new Place();
  const batches = upTo(MOST_OPEN + 100).map((at) => place.arrived(String(at)));
  assert.equal(place.openCount, MOST_OPEN);
  batches.slice(0, MOST_OPEN - 1).forEach((batch) => place.finish(batch));
  assert.equal(place.done, String(MOST_OPEN - 1));
  batches.slice(MOST_OPEN).forEach((batch) => place.finish(batch));
  assert.equal(place.done, String(MOST_OPEN - 1), "one of those that go together is not done");
  place.finish(batches[MOST_OPEN - 1] as number);
  assert.deepEqual([place.done, place.openCount], [String(MOST_OPEN + 100), 0]);
  const first = place.arrived("first");
  for (let pairs = 0; pairs < 1000; pairs += 1) {
    // In pairs, and the second of each before the first.
    const pair = [place.arrived("a"), place.arrived("b")];
    pair.reverse().forEach((batch) => place.finish(batch));
    assert.equal(place.openCount, 2);
  }
  place.finish(first);
  assert.deepEqual([place.done, place.openCount], ["b", 0]);
});

// Hands.

function handsWith(count: number): { hands: Hands; copies: number[] } {
  const hands = new Hands();
  const copies = upTo(count).map((sequence) => hands.arrive(BigInt(sequence), 10) as number);
  upTo(count).forEach((sequence) => hands.taken(BigInt(sequence)));
  return { hands, copies };
}

/** All that is written now, by command. */
function said(hands: Hands): string[][] {
  const all: string[][] = [];
  for (let request = 0; request < 200; request += 1) {
    const told = hands.write(0, request);
    if (told !== undefined) {
      all.push((told.sequences ?? []).map(String));
    }
  }
  return all;
}

test("no command has more sequences than the limit, and only those of one verdict", () => {
  const { hands, copies } = handsWith(MOST_SEQUENCES + 2);
  copies.forEach((copy, at) => {
    hands.settle(BigInt(at + 1), copy, at === 1 ? { is: "reject", reason: "r" } : ACK, undefined);
  });
  assert.deepEqual(said(hands).map((sequences) => sequences.length), [1, 1, MOST_SEQUENCES]);
});

test("what is held is what the application has or has settled in vain", () => {
  const { hands, copies } = handsWith(3);
  hands.arrive(4n, 10);
  hands.settle(2n, copies[1] as number, ACK, undefined);
  said(hands);
  assert.deepEqual(hands.sessionLost([]), { events: 1, bytes: 10 }, "4 was not taken");
  assert.deepEqual(hands.heldSequences(), [1n, 2n, 3n]);
});

test("leases that are lost are counted beyond those that are named", () => {
  const { hands, copies } = handsWith(MOST_LOST + 5);
  copies.forEach((copy, at) => hands.settle(BigInt(at + 1), copy, ACK, undefined));
  hands.leasesLost(upTo(MOST_LOST + 5).map(BigInt), []);
  const lost = hands.takeLost();
  assert.deepEqual([lost.sequences.length, lost.count], [MOST_LOST, MOST_LOST + 5]);
  assert.deepEqual(hands.takeLost(), { sequences: [], count: 0 }, "it is told once");
  assert.equal(hands.unanswered, 0);
});

test("a word whose lease is lost is said again when the event comes again, unless somebody was told", () => {
  for (const isTold of [false, true]) {
    const { hands, copies } = handsWith(1);
    hands.settle(1n, copies[0] as number, ACK, undefined);
    hands.leasesLost([1n], []);
    if (isTold) {
      hands.takeLost();
    }
    assert.equal(hands.arrive(1n, 10) !== undefined, isTold);
    assert.equal(hands.write(0, 1) !== undefined, !isTold);
  }
});

test("words that a lost session left unanswered are said again in their order", () => {
  const { hands, copies } = handsWith(40);
  copies.forEach((copy, at) => {
    hands.settle(BigInt(at + 1), copy, at % 2 === 0 ? ACK : { is: "reject", reason: String(at) }, undefined);
  });
  const all = upTo(40).map(String);
  assert.deepEqual(said(hands).flat(), all);
  hands.sessionLost([]);
  assert.deepEqual(said(hands).flat(), all);
});

test("of more than a hub takes those are named of which something was said", () => {
  const { hands, copies } = handsWith(MOST_NAMED);
  hands.settle(BigInt(MOST_NAMED), copies[MOST_NAMED - 1] as number, ACK, undefined);
  assert.equal(hands.heldSequences().length, MOST_NAMED, "whether it is in hand or said");
  hands.arrive(BigInt(MOST_NAMED + 1), 10);
  hands.taken(BigInt(MOST_NAMED + 1));
  const named = hands.heldSequences();
  assert.deepEqual([named.length, named.at(-1)], [MOST_NAMED, BigInt(MOST_NAMED)]);
});

test("only what is lost has failed, and is not extended any more", () => {
  const { hands, copies } = handsWith(4);
  hands.settle(1n, copies[0] as number, ACK, 7);
  hands.settle(2n, copies[1] as number, ACK, 8);
  hands.extend(3n, copies[2] as number, undefined);
  hands.extend(4n, copies[3] as number, undefined);
  const news: News[] = [];
  hands.leasesLost([], news);
  assert.equal(news.length, 0);
  hands.leasesLost([2n, 3n, 99n], news);
  assert.deepEqual(news.map((one) => one.of === "settled" && [one.ticket, one.error?.reason]), [[8, "LEASE_EXPIRED"]]);
  assert.deepEqual(said(hands), [["1"], ["4"]]);
});

test("no more extensions are under way than the limit, and the others go together", () => {
  const { hands, copies } = handsWith(2);
  for (let request = 0; request < MOST_EXTENDING; request += 1) {
    hands.extend(1n, copies[0] as number, undefined);
    assert(hands.write(0, request) !== undefined);
  }
  hands.extend(1n, copies[0] as number, undefined);
  hands.extend(2n, copies[1] as number, undefined);
  assert.equal(hands.write(0, 100), undefined);
  hands.answered(0, 0, [], []);
  assert.deepEqual(hands.write(0, 100)?.sequences, ["1", "2"]);
});

test("no more verdicts are owed than the limit, and the oldest go first", () => {
  const owed = new Owed();
  upTo(MOST_OWED + 1).forEach((sequence) => owed.put(BigInt(sequence), ACK));
  assert.equal(owed.size, MOST_OWED);
  assert.deepEqual([owed.take(1n), owed.take(2n), owed.take(2n)], [undefined, ACK, undefined]);
});

test("a reason is cut to what a hub takes, between characters", () => {
  for (const [reason, bytes] of [
    ["x".repeat(MAX_REASON_BYTES), MAX_REASON_BYTES],
    ["x".repeat(MAX_REASON_BYTES + 1), MAX_REASON_BYTES],
    ["ä".repeat(600), MAX_REASON_BYTES],
    ["x".repeat(MAX_REASON_BYTES - 1) + "ä", MAX_REASON_BYTES - 1],
    ["x".repeat(MAX_REASON_BYTES - 2) + "😀", MAX_REASON_BYTES - 2],
  ] as const) {
    const told = acknowledgement({ is: "reject", reason }).reason ?? "";
    assert(reason.startsWith(told));
    assert.equal(Buffer.byteLength(told), bytes);
  }
});

// What came.

const gap = (count: number, reason: GapReason) => ({ reason, count, from: undefined, to: undefined });

function gapsOf(queue: Queue): (number | undefined)[] {
  const counts: (number | undefined)[] = [];
  for (let one = queue.pop(); one !== undefined; one = queue.pop()) {
    if (one.is === "gap") {
      counts.push(one.missing.count);
    }
  }
  return counts;
}

test("gaps that follow each other are one, and one of a number that nobody knows stays one", () => {
  const queue = new Queue();
  queue.pushGap(gap(1, "overflow"));
  queue.pushGap(gap(2, "overflow"));
  queue.pushEvents([], 0, "", NOTHING);
  queue.pushGap(gap(4, "overflow"));
  queue.pushGap(gap(8, "conflated"));
  assert.deepEqual(gapsOf(queue), [3, 4, 8]);
  const first = { ...gap(3, "retention"), from: 3n, to: 5n };
  const next = { reason: "retention", count: undefined, from: 6n, to: 9n } as const;
  assert.deepEqual(merged(first, next), { reason: "retention", count: undefined, from: 3n, to: 9n });
});

test("no more gaps wait than the limit, and none is forgotten", () => {
  const queue = new Queue();
  for (let number = 0; number < 3 * MOST_GAPS; number += 1) {
    queue.pushGap(gap(1, number % 2 === 0 ? "overflow" : "conflated"));
    if (number === 2 * MOST_GAPS) {
      queue.pushEvents([], 0, "", NOTHING);
    }
  }
  assert.equal(queue.gapCount, MOST_GAPS);
  assert.equal(gapsOf(queue).reduce((sum: number, count) => sum + (count ?? 0), 0), 3 * MOST_GAPS);
  assert.equal(queue.gapCount, 0);
});

test("however often it has caught up it says so once, and what is forgotten is counted", () => {
  const queue = new Queue();
  queue.pushCaughtUp();
  queue.pushCaughtUp();
  assert.deepEqual([queue.pop()?.is, queue.pop()], ["caughtUp", undefined]);
  for (let events = 0; events < 100; events += 1) {
    queue.pushEvents([], 0, "", { events: 1, bytes: 2 });
  }
  queue.pop();
  queue.pushGap(gap(1, "overflow"));
  assert.deepEqual(queue.clear(), { events: 99, bytes: 198 });
  assert.equal(queue.pop(), undefined);
});

// Tokens.

test("a token is replaced when four fifths of its life have passed, as the source or else the hub says", () => {
  const refresh = new Refresh(true, seeded(1));
  refresh.sessionBegins(1000, 1, 10_000);
  refresh.hubSays(1000, 100_000);
  assert.deepEqual([refresh.due(), refresh.fetch(8000)], [9000, undefined]);
  assert.equal(refresh.fetch(9000), 1);
  assert.deepEqual([refresh.fetch(9000), refresh.due()], [undefined, undefined], "it is asked once");
  assert(refresh.fetched(10_000, 1, { value: "two", life: 20_000 }));
  assert.deepEqual([refresh.take(), refresh.due()], ["two", 26_000]);
  refresh.sessionBegins(0, 2, undefined);
  refresh.hubSays(0, 10_000);
  assert.equal(refresh.due(), 8000);
  refresh.expiring(2000);
  assert.equal(refresh.fetch(2000), 2);
});

test("a source that fails is asked again, one whose tokens are old is not asked in a loop, and without one nothing is", () => {
  const refresh = new Refresh(true, seeded(1));
  refresh.sessionBegins(0, 1, 0);
  for (const bad of [undefined, "", "x".repeat(MAX_TOKEN_BYTES + 1)]) {
    assert.equal(refresh.fetch(1e6), 1);
    assert(!refresh.fetched(0, 1, bad === undefined ? bad : { value: bad, life: undefined }));
  }
  assert.equal(refresh.fetch(1e6), 1);
  assert(refresh.fetched(0, 1, { value: "x".repeat(MAX_TOKEN_BYTES), life: undefined }));
  refresh.sessionBegins(0, 2, 0);
  let now = 0;
  for (let asked = 0; asked < 20; asked += 1) {
    assert.equal(refresh.fetch(now), 2);
    assert(refresh.fetched(now, 2, { value: "old", life: -5000 }));
    assert.equal(refresh.take(), "old");
    now = refresh.due() ?? 0;
  }
  assert(now > 60_000, String(now));
  const none = new Refresh(false, seeded(1));
  none.expiring(0);
  assert.deepEqual([none.due(), none.fetch(1e6)], [undefined, undefined]);
});

// The rest.

test("the older session is named until everything is back, and new members are found by their session alone", () => {
  const [one, two] = [new Home(), new Home()];
  [one, two].forEach((member) => member.found(false));
  assert(Home.isHere([one, two]) && Home.isHere([]));
  [one, two].forEach((member) => member.lost());
  assert(!Home.isHere([one, two]), "the next one was lost before it was asked");
  one.found(true);
  assert(!Home.isHere([one, two]), "one is found by both names, the other by the older");
  two.found(true);
  assert(Home.isHere([one, two]));
  two.lost();
  one.found(false);
  assert(Home.isHere([one, two]));
  one.left();
  assert(!Home.isHere([one, two]));
});

test("no more reasons are counted than the limit, and none is forgotten", () => {
  const losses = new Losses();
  upTo(MOST_REASONS + 1).forEach((at) => losses.count(failure("lost", "UNAVAILABLE", `REASON_${at}`, "gone")));
  losses.count(failure("lost", "UNAVAILABLE", "REASON_1", "gone"));
  const all = losses.all();
  assert.deepEqual([Object.keys(all).length, all["OTHER"], all["REASON_1"]], [MOST_REASONS + 1, 1, 2]);
});

test("a heap gives what is first, and tickets stay in order", () => {
  const random = seeded(3);
  const heap = new Heap();
  const times = upTo(500).map((id) => {
    const at = Math.floor(random() * 100);
    heap.push(at, id);
    return at;
  });
  heap.retain((id) => id > 100);
  const popped: number[] = [];
  for (let one = heap.pop(); one !== undefined; one = heap.pop()) {
    popped.push(one.at);
  }
  assert.deepEqual(popped, times.slice(100).sort((one, other) => one - other));

  const tickets = new Tickets();
  const expected = new Set<number>();
  for (let step = 0; step < 20_000; step += 1) {
    const ticket = Math.floor(random() * 3000);
    if (random() < 0.5) {
      tickets.add(ticket);
      expected.add(ticket);
    } else {
      const first = random() < 0.5 ? (tickets.first() ?? 0) : ticket;
      tickets.remove(first);
      expected.delete(first);
    }
  }
  assert.deepEqual([...tickets], [...expected].sort((one, other) => one - other));
});

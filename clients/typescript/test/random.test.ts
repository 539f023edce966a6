// Anything in any order, with cuts anywhere: what must hold at the end, and all the way.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SwitchyardError } from "../src/error.js";
import { ACK } from "../src/machine/verdict.js";
import { type Held, seeded, STREAM, World } from "./world.js";

const WINDOW = 5;
const CASES = 300;

/** The application. */
class Application {
  readonly reader: number;
  readonly member: number;
  /** What came for the reader. */
  readonly read: number[] = [];
  /** What the member has. */
  readonly held: Held[] = [];
  /** What the application has said to be done. */
  readonly done = new Set<number>();
  dropped = 0;
  readonly published: number[] = [];

  constructor(private readonly world: World) {
    this.reader = world.subscribe({ stream: STREAM, from: "earliest", window: WINDOW });
    this.member = world.subscribe({ stream: STREAM, group: "g", from: "earliest", window: WINDOW });
  }

  publish(): void {
    this.published.push(this.world.publish("s.x", String(this.published.length + 1)));
  }

  take(id: number): void {
    const { machine, now } = this.world;
    const incoming = machine.table.take(now, id);
    assert(incoming?.is !== "gap", "nothing is lost to a stream");
    if (incoming?.is !== "events") {
      return;
    }
    for (const { sequence, copy } of incoming.events) {
      const number = Number(sequence);
      if (id === this.reader) {
        this.read.push(number);
        continue;
      }
      assert(!this.done.has(number), `${number} was done, and comes again`);
      assert(this.held.every(([held]) => held !== number), `${number} is in hand`);
      this.held.push([number, copy]);
    }
    if (id === this.reader) {
      machine.table.finishBatch(now, id, incoming.batch, machine.news);
    }
  }

  say(chance: number): void {
    const at = this.held.length >> 1;
    const event = this.held[at];
    if (event === undefined) {
      return;
    }
    if (chance < 0.1) {
      this.world.extend(this.member, event);
      return;
    }
    if (chance < 0.2) {
      this.dropped += 1;
      this.world.letGo(this.member, event);
    } else if (chance < 0.3) {
      assert(this.world.settleEvent(this.member, event, { is: "nack", delay: undefined, reason: "no paper" }));
    } else {
      assert(this.world.settleEvent(this.member, event, ACK));
      this.done.add(event[0]);
    }
    this.held.splice(at, 1);
  }

  /** Everything that it has is done. */
  finish(): void {
    while (this.held.length > 0) {
      this.say(1);
    }
  }
}

function step(world: World, application: Application, random: () => number): void {
  const few = 1 + Math.floor(random() * 4);
  const kind = random();
  if (kind < 0.1) {
    if (!world.isConnected) {
      world.plan();
    }
  } else if (kind < 0.23) {
    world.turn(few);
  } else if (kind < 0.36) {
    world.hubReads(few);
  } else if (kind < 0.46) {
    world.hub.send();
  } else if (kind < 0.59) {
    world.clientReads(few);
  } else if (kind < 0.63) {
    if (world.isConnected) {
      world.hub.keeps = random() < 0.7;
      world.cut();
    }
  } else if (kind < 0.69) {
    world.pass(random() * 500);
  } else if (kind < 0.81) {
    application.publish();
  } else if (kind < 0.9) {
    application.take(random() < 0.5 ? application.reader : application.member);
  } else {
    application.say(random());
  }
}

/** Everything works for a while; leases of what was dropped run out only with their session. */
function finish(world: World, application: Application): void {
  const count = application.published.length;
  for (const cuts of [false, true]) {
    if (cuts && world.isConnected) {
      world.cut();
    }
    for (let rounds = 0; rounds < count + 3; rounds += 1) {
      world.settle(4);
      for (let takes = 0; takes < 10; takes += 1) {
        application.take(application.reader);
        application.take(application.member);
      }
      application.finish();
      if (application.read.length === count && world.hub.done.size + application.dropped >= count) {
        break;
      }
    }
  }
  for (let rounds = 0; rounds < count + 3 && world.hub.done.size < count; rounds += 1) {
    world.settle(4);
    // If the hub had nothing to keep under the session that the client names, and what it sent in the next one was lost
    // before anything was read, only time brings that again.
    world.hub.forgetAbsent();
    application.take(application.member);
    application.finish();
  }
}

test("nothing is lost, nothing is done twice, and order is kept", () => {
  const first = Number(process.env["SEED"] ?? 1);
  for (let seed = first; seed < first + CASES; seed += 1) {
    const random = seeded(seed);
    const world = new World({ random: seeded(seed + 1_000_000) });
    const application = new Application(world);
    const steps = Math.floor(random() * 300);
    for (let taken = 0; taken < steps; taken += 1) {
      step(world, application, random);
      assert(world.held <= 2 * WINDOW, `seed ${seed}: ${world.held} events are held`);
    }
    finish(world, application);
    const numbers = application.published.map((_, at) => at + 1);
    assert.deepEqual(world.hub.log.map((event) => Number(event.id)), numbers, `seed ${seed}: once, and in order`);
    const sequences = application.published.map((ticket) => {
      const result = world.results.get(ticket)?.[0];
      assert(result !== undefined && !(result instanceof SwitchyardError) && result.kind === "stored", `seed ${seed}`);
      return Number(result.sequence);
    });
    assert.deepEqual(sequences, numbers, `seed ${seed}`);
    assert.deepEqual(application.read, numbers, `seed ${seed}`);
    assert.equal(world.hub.done.size, numbers.length, `seed ${seed}: all of it is done`);
    assert.deepEqual(world.hub.leases.sequences(), [], `seed ${seed}: nothing waits for a member that does not come back`);
  }
});

// A hub in memory that keeps the contract, a connection that can be cut anywhere, and an application, around one machine.

import assert from "node:assert/strict";

import { ofStatus, type SwitchyardError } from "../src/error.js";
import { encode, type NewEvent } from "../src/event.js";
import type { NewPublish } from "../src/machine/entry.js";
import { type Loss, Machine, type Setup } from "../src/machine/machine.js";
import type { Outcome } from "../src/machine/news.js";
import type { Verdict } from "../src/machine/verdict.js";
import { sizesOf } from "../src/size.js";
import { checked, type Spec } from "../src/spec.js";
import type { Status as ClientStatus } from "../src/state.js";
import {
  count,
  exact,
  type Int64,
  type SessionRequest,
  type SessionResponse,
  type Status,
  type WireAckResult,
  type WireEvent,
  type WirePublishResult,
  type WireReceived,
  type WireSpec,
} from "../src/wire.js";

/** The one stream of the hub, of the topics that begin with its name. */
export const STREAM = "s";

/** Random numbers that are the same with the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A status as the hub makes them. */
export function status(code: number, reason: string, retryMs?: number): Status {
  const details: NonNullable<Status["details"]> = [
    { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason },
  ];
  if (retryMs !== undefined) {
    details.push({ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: `${retryMs / 1000}s` });
  }
  return { code, message: reason, details };
}

/** Codes of gRPC that tests name. */
export const CODE = {
  INVALID_ARGUMENT: 3,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
};

/** The group of the hub: who has which event, and what a member that comes back still has. */
export class Leases {
  readonly holders = new Map<number, number>();
  /** By the session and the subscription; of one that came back also by those before. */
  private known = new Map<string, number>();
  private next = 0;

  /** A member joins in one session, perhaps after another one. True if it has what it held there: all of it, or what it says. */
  join(id: number, session: string, previous: string, held: number[] | undefined): [number, boolean] {
    this.next += 1;
    const member = this.next;
    const name = `${previous}/${id}`;
    const before = this.known.get(name);
    const isBack = before !== undefined && [...this.holders.values()].includes(before);
    if (isBack) {
      this.known.set(name, member);
      for (const [sequence, holder] of this.holders) {
        if (holder !== before) {
          continue;
        }
        if (held === undefined || held.includes(sequence)) {
          this.holders.set(sequence, member);
        } else {
          this.holders.delete(sequence);
        }
      }
    }
    this.known.set(`${session}/${id}`, member);
    return [member, isBack];
  }

  give(member: number, sequence: number): void {
    assert(!this.holders.has(sequence), `${sequence} is somebody's`);
    this.holders.set(sequence, member);
  }

  has(member: number, sequence: number): boolean {
    return this.holders.get(sequence) === member;
  }

  /** A member goes in order. */
  leave(member: number): void {
    this.forgetIf((holder) => holder === member);
  }

  forgetIf(is: (holder: number) => boolean): void {
    for (const [sequence, holder] of this.holders) {
      if (is(holder)) {
        this.holders.delete(sequence);
      }
    }
  }

  /** Nobody is waited for any longer. */
  forgetAll(): void {
    this.holders.clear();
    this.known.clear();
  }

  sequences(): number[] {
    return [...this.holders.keys()].sort((one, other) => one - other);
  }
}

/** One subscription, as the hub sees it. */
interface Sub {
  readonly spec: WireSpec;
  credit: { events: number; bytes: number } | undefined;
  /** The sequence it has come to. */
  at: number;
  isToldCaughtUp: boolean;
  /** Which member of the group it is, if it is one. */
  readonly member: number;
}

/** What outlives sessions. */
export class Hub {
  readonly log: WireEvent[] = [];
  /** Events that belong to no stream, as often as they were delivered. */
  readonly live: WireEvent[] = [];
  /** What is done for the group. */
  readonly done = new Set<number>();
  readonly leases = new Leases();
  /** It waits for members whose connection is cut to come back. */
  keeps = false;
  /** It is of an earlier version: it knows nothing of what members say that they hold. */
  isOld = false;
  readonly subs = new Map<number, Sub>();
  /** Every `subscribe`, and all that was said of events, of all sessions. */
  readonly subscribes: WireSpec[] = [];
  told: NonNullable<SessionRequest["acknowledge"]>[] = [];
  alternatives: string[] = [];
  sessions = 0;
  readonly hellos: NonNullable<SessionRequest["hello"]>[] = [];
  /** Frames on their way to the client. */
  out: SessionResponse[] = [];
  /** Every publish is refused like this, while it is set. */
  refuses: Status | undefined;
  /** The tokens that came in sessions. */
  readonly authenticated: string[] = [];
  /** Publishes as they came, each with its ids. */
  readonly publishes: string[][] = [];

  say(requestId: Int64 | undefined, frame: SessionResponse): void {
    this.out.push({ ...(requestId !== undefined && { requestId }), ...frame });
  }

  open(): void {
    this.sessions += 1;
    this.say(undefined, { welcome: { sessionId: this.session(), alternatives: this.alternatives } });
  }

  private session(): string {
    return `session-${this.sessions}`;
  }

  /** The connection is gone: what was leased goes back, unless the member is waited for. */
  cut(): void {
    this.out = [];
    this.subs.clear();
    if (!this.keeps) {
      this.leases.forgetAll();
    }
  }

  /** Those that are not here have not come back in time. */
  forgetAbsent(): void {
    const here = new Set([...this.subs.values()].map((sub) => sub.member));
    this.leases.forgetIf((holder) => !here.has(holder));
  }

  hear({ requestId, ...command }: SessionRequest): void {
    if (command.hello !== undefined) {
      this.hellos.push(command.hello);
    } else if (command.subscribe !== undefined) {
      this.subscribe(requestId, count(command.subscribe.subscriptionId), command.subscribe.spec);
    } else if (command.unsubscribe !== undefined) {
      const id = count(command.unsubscribe.subscriptionId);
      const sub = this.subs.get(id);
      assert(sub !== undefined, "an open subscription");
      this.subs.delete(id);
      this.leases.leave(sub.member);
      this.say(requestId, { ended: { subscriptionId: String(id), reason: "END_REASON_CLIENT_UNSUBSCRIBED" } });
    } else if (command.credit !== undefined) {
      const sub = this.subs.get(count(command.credit.subscriptionId));
      const [events, bytes] = [count(command.credit.credit.events), count(command.credit.credit.bytes)];
      assert(sub !== undefined && (events > 0 || bytes > 0), "an open subscription, and a grant of something");
      sub.credit = { events: (sub.credit?.events ?? 0) + events, bytes: (sub.credit?.bytes ?? 0) + bytes };
    } else if (command.acknowledge !== undefined) {
      this.acknowledge(requestId, command.acknowledge);
    } else if (command.publish !== undefined) {
      this.publish(requestId, command.publish);
    } else if (command.authenticate !== undefined) {
      this.authenticated.push(command.authenticate.token);
    } else {
      assert.fail(`not expected: ${JSON.stringify(command)}`);
    }
  }

  private subscribe(requestId: Int64 | undefined, id: number, spec: WireSpec): void {
    this.subscribes.push(spec);
    assert(spec.credit !== undefined, "explicit credit");
    const credit = { events: count(spec.credit.events), bytes: count(spec.credit.bytes) };
    assert(credit.events > 0 === credit.bytes > 0, "both units or none");
    const latest = this.log.length;
    const { start } = spec;
    let at = latest;
    if (start?.resumeToken !== undefined) {
      at = Number(start.resumeToken);
    } else if (start?.afterSequence !== undefined) {
      at = count(start.afterSequence);
    } else if (start?.preset === "START_PRESET_EARLIEST") {
      at = 0;
    }
    const [member, reattached, lost] = this.join(id, spec);
    assert(!this.subs.has(id), "an id that is in use");
    this.subs.set(id, { spec, credit: credit.events > 0 ? credit : undefined, at, isToldCaughtUp: false, member });
    this.say(requestId, {
      subscribed: {
        subscriptionId: String(id),
        ...(spec.stream !== undefined && { epoch: "1" }),
        startSequence: String(at + 1),
        earliestSequence: "1",
        latestSequence: String(latest),
        ...(reattached && { reattached }),
        ...(lost.length > 0 && { lostSequences: lost.map(String) }),
      },
    });
  }

  /** Which member that is, whether it has what it held before, and what it says it holds and does not. */
  private join(id: number, spec: WireSpec): [number, boolean, number[]] {
    if (spec.ackMode !== "ACK_MODE_EXPLICIT") {
      assert(spec.reattach === undefined, "it holds nothing");
      return [0, false, []];
    }
    const held = this.isOld ? undefined : spec.reattach?.heldSequences?.map(count);
    const previous = this.hellos.at(-1)?.previousSessionId ?? "";
    const [member, isBack] = this.leases.join(id, this.session(), previous, held);
    const lost = (held ?? []).filter((sequence) => !this.leases.has(member, sequence) && !this.done.has(sequence));
    return [member, isBack && !this.isOld, lost];
  }

  private acknowledge(requestId: Int64 | undefined, told: NonNullable<SessionRequest["acknowledge"]>): void {
    this.told.push(told);
    const member = this.subs.get(count(told.subscriptionId))?.member ?? 0;
    const results: WireAckResult[] = [];
    for (const sequence of (told.sequences ?? []).map(count)) {
      const isLeased = this.leases.has(member, sequence);
      if (isLeased && told.outcome !== "ACK_OUTCOME_EXTEND") {
        this.leases.holders.delete(sequence);
      }
      const isOk = isLeased || this.done.has(sequence);
      if (isLeased && (told.outcome === "ACK_OUTCOME_ACK" || told.outcome === "ACK_OUTCOME_REJECT")) {
        this.done.add(sequence);
      }
      const lost = { status: status(CODE.FAILED_PRECONDITION, "LEASE_EXPIRED") };
      results.push({ sequence: String(sequence), ...(!isOk && lost) });
    }
    this.say(requestId, { acknowledged: { subscriptionId: told.subscriptionId ?? 0, results } });
  }

  private publish(requestId: Int64 | undefined, publish: NonNullable<SessionRequest["publish"]>): void {
    this.publishes.push(publish.events.map((event) => event.id ?? ""));
    if (this.refuses !== undefined) {
      this.say(requestId, { error: this.refuses });
      return;
    }
    const isLive = (event: WireEvent): boolean => event.topic?.startsWith(STREAM) !== true;
    if (publish.precondition !== undefined) {
      if (publish.events.some(isLive)) {
        this.say(requestId, { error: status(CODE.FAILED_PRECONDITION, "CONFIG_MISMATCH") });
        return;
      }
      const isKnown = publish.events.every((event) => this.find(event) > 0);
      if (!isKnown && exact(publish.precondition.lastSequence) !== BigInt(this.log.length)) {
        const refused = { status: status(CODE.ABORTED, "SEQUENCE_MISMATCH") };
        this.say(requestId, { published: { results: publish.events.map(() => refused) } });
        return;
      }
    }
    const results: WirePublishResult[] = publish.events.map((event) => {
      assert(event.id !== undefined, "every event has its id");
      if (isLive(event)) {
        this.live.push(event);
        return { matched: "1" };
      }
      const known = this.find(event);
      if (known === 0) {
        this.log.push(event);
      }
      const sequence = String(known > 0 ? known : this.log.length);
      return { stream: STREAM, sequence, epoch: "1", ...(known > 0 && { duplicate: true }) };
    });
    this.say(requestId, { published: { results } });
  }

  private find(event: WireEvent): number {
    const key = ({ topic, source, id }: WireEvent): string => JSON.stringify([topic, source, id]);
    return this.log.findIndex((stored) => key(stored) === key(event)) + 1;
  }

  /** Sends what there is credit for, a few events in a frame. */
  send(): void {
    for (const [id, sub] of this.subs) {
      while (sub.spec.stream !== undefined && this.sendSome(id, sub));
    }
  }

  private sendSome(id: number, sub: Sub): boolean {
    const latest = this.log.length;
    const isMember = sub.spec.ackMode === "ACK_MODE_EXPLICIT";
    const events: WireReceived[] = [];
    while (events.length < 3 && sub.credit !== undefined && sub.credit.events > 0 && sub.credit.bytes > 0) {
      const sequence = isMember ? this.free() : sub.at + 1;
      if (sequence === undefined || sequence > latest) {
        break;
      }
      const received = { event: this.log[sequence - 1] as WireEvent, stream: STREAM, sequence: String(sequence) };
      if (isMember) {
        this.leases.give(sub.member, sequence);
      } else {
        sub.at = sequence;
      }
      sub.credit.events -= 1;
      sub.credit.bytes -= sizesOf({ events: [received] })[0] as number;
      events.push(received);
    }
    const resumeToken = isMember ? "" : String(sub.at);
    if (events.length > 0) {
      sub.isToldCaughtUp = false;
      this.say(undefined, { events: { subscriptionId: String(id), events, resumeToken } });
    } else if (!isMember && sub.at === latest && !sub.isToldCaughtUp) {
      sub.isToldCaughtUp = true;
      this.say(undefined, { progress: { subscriptionId: String(id), resumeToken, caughtUp: true } });
    }
    return events.length > 0;
  }

  /** The first event that nobody of the group has. */
  private free(): number | undefined {
    for (let sequence = 1; sequence <= this.log.length; sequence += 1) {
      if (!this.done.has(sequence) && !this.leases.holders.has(sequence)) {
        return sequence;
      }
    }
    return undefined;
  }
}

/** What a client of a test is made of. */
export function setup(): Setup {
  return {
    name: "test",
    labels: {},
    heartbeat: 15_000,
    addresses: ["http://hub"],
    hasSource: false,
    returnsWhenTerminated: false,
    most: { events: 8192, bytes: 16 << 20 },
    random: seeded(7),
  };
}

/** An event that was given to the application: its sequence, and which copy of it. */
export type Held = readonly [sequence: number, copy: number];

/** Everything, and the time. */
export class World {
  readonly machine: Machine;
  readonly hub = new Hub();
  now = 0;
  isConnected = false;
  readonly opened: { readonly at: number; readonly address: string }[] = [];
  readonly states: ClientStatus[] = [];
  readonly results = new Map<number, Outcome[]>();
  readonly settled = new Map<number, SwitchyardError | undefined>();
  /** Whether the client has half-closed. */
  isHalfClosed = false;
  /** Frames on their way to the hub. */
  private wire: SessionRequest[] = [];

  constructor(change: Partial<Setup> = {}) {
    this.machine = new Machine({ ...setup(), ...change });
    this.machine.drive();
  }

  hearNews(): void {
    for (const news of this.machine.news.splice(0)) {
      if (news.of === "state") {
        this.states.push(news.status);
      } else if (news.of === "published") {
        assert(!this.results.has(news.ticket), "it is told once");
        this.results.set(news.ticket, news.results);
      } else if (news.of === "settled") {
        assert(!this.settled.has(news.ticket), "it is told once");
        this.settled.set(news.ticket, news.error);
      }
    }
  }

  pass(time: number): void {
    this.now += time;
  }

  /** Plans, and connects if that is the plan. */
  plan(): void {
    assert(!this.isConnected);
    const plan = this.machine.plan(this.now);
    if (plan.to === "open") {
      this.open(plan.address);
    }
    this.hearNews();
  }

  private open(address: string): void {
    this.opened.push({ at: this.now, address });
    this.isConnected = true;
    this.isHalfClosed = false;
    this.machine.connected(this.now, undefined, 0);
    this.hub.open();
  }

  /** Waits as long as it takes, and connects. */
  connect(): void {
    for (let tries = 0; tries < 100 && !this.isConnected; tries += 1) {
      const plan = this.machine.plan(this.now);
      if (plan.to === "rest") {
        this.now = Math.max(this.now, plan.until);
      } else if (plan.to === "open") {
        this.open(plan.address);
      } else {
        break;
      }
    }
    this.hearNews();
  }

  /** The connection is lost, with everything on its way. */
  cut(): void {
    this.lose("ended");
  }

  lose(loss: Loss): void {
    this.hub.cut();
    this.wire = [];
    this.isConnected = false;
    this.machine.lost(this.now, loss);
    this.hearNews();
  }

  /** A turn of the driver: writes at most so many frames. */
  turn(frames = Infinity): void {
    if (!this.isConnected) {
      return;
    }
    if (this.hub.out.length === 0 && this.machine.isSilent(this.now)) {
      this.lose("silent");
      return;
    }
    const turn = this.machine.turn(this.now);
    if (turn.cut !== undefined) {
      this.lose(turn.cut);
      return;
    }
    this.isHalfClosed ||= turn.halfCloses;
    for (let written = 0; written < frames; written += 1) {
      const frame = this.machine.write(this.now);
      if (frame === undefined) {
        break;
      }
      assert(!this.isHalfClosed, "nothing is written any more");
      this.wire.push(JSON.parse(frame) as SessionRequest);
    }
    this.hearNews();
  }

  /** The hub reads at most so many commands. */
  hubReads(commands = Infinity): void {
    for (const request of this.wire.splice(0, commands)) {
      this.hub.hear(request);
    }
  }

  /** The client reads at most so many frames. */
  clientReads(frames = Infinity): void {
    for (const frame of this.hub.out.splice(0, frames)) {
      this.machine.frame(this.now, 0, JSON.parse(JSON.stringify(frame)) as SessionResponse);
    }
    this.hearNews();
  }

  /** The hub says something. */
  hear(frame: SessionResponse): void {
    this.hub.out.push(frame);
    this.clientReads();
  }

  /** Everything that is on its way arrives, and what comes of that, until nothing has come for a while. */
  settle(idle = 60): void {
    let idles = 0;
    for (let turns = 0; turns < 10_000; turns += 1) {
      if (idles === idle) {
        return;
      }
      this.connect();
      this.turn();
      this.hubReads();
      this.hub.send();
      if (this.hub.out.length === 0 && this.wire.length === 0) {
        idles += 1;
        this.pass(25);
      }
      this.clientReads();
    }
    assert.fail("something comes for ever");
  }

  subscribe(spec: Spec): number {
    return this.machine.subscribe(checked(spec), undefined);
  }

  /** Publishes events of these topics, each with its id: the ticket. */
  publish(topic: string, id: string, change: Partial<NewPublish> = {}): number {
    return this.publishAll([{ topic, id }], change);
  }

  publishAll(events: NewEvent[], change: Partial<NewPublish> = {}): number {
    const sender = { name: "test", newId: () => "?", traceContext: undefined };
    const ticket = this.machine.publish({
      events: events.map((event) => encode(event, sender)),
      precondition: undefined,
      deadline: this.now + 3_600_000,
      retryLive: false,
      ...change,
    });
    assert(ticket !== undefined, "room");
    return ticket;
  }

  /** The next events of a subscription, and their batch; other news of it is passed over. */
  takeEvents(id: number): { readonly batch: number; readonly events: Held[] } | undefined {
    for (let one = this.machine.table.take(this.now, id); one !== undefined; one = this.machine.table.take(this.now, id)) {
      if (one.is === "events") {
        return { batch: one.batch, events: one.events.map(({ sequence, copy }) => [Number(sequence), copy]) };
      }
    }
    return undefined;
  }

  /** Everything that comes for the application now. */
  takeAll(id: number): Held[] {
    const all: Held[] = [];
    for (let some = this.takeEvents(id); some !== undefined; some = this.takeEvents(id)) {
      all.push(...some.events);
    }
    return all;
  }

  /** Settles an event for the application. */
  settleEvent(id: number, [sequence, copy]: Held, verdict: Verdict, ticket?: number): boolean {
    return this.machine.table.settleEvent(this.now, { id, sequence: BigInt(sequence), copy }, verdict, ticket);
  }

  /** The same for somebody who waits for the answer: the ticket. */
  settleAndWait(id: number, held: Held, verdict: Verdict): number {
    const ticket = this.machine.ticket();
    assert(this.settleEvent(id, held, verdict, ticket));
    return ticket;
  }

  extend(id: number, [sequence, copy]: Held, time?: number): void {
    this.machine.table.extend(this.now, { id, sequence: BigInt(sequence), copy }, time);
  }

  letGo(id: number, [sequence, copy]: Held): void {
    this.machine.table.letGo(this.now, { id, sequence: BigInt(sequence), copy }, this.machine.news);
    this.hearNews();
  }

  get state(): string {
    return this.machine.status.state;
  }

  /** What a subscription holds. */
  get held(): number {
    return this.machine.table.totals().events;
  }
}

/** A session that failed with a status. */
export function failed(code: number, reason: string, retryMs?: number): Loss {
  return { failed: ofStatus("lost", status(code, reason, retryMs)) };
}

export function sequencesOf(events: readonly Held[]): number[] {
  return events.map(([sequence]) => sequence);
}

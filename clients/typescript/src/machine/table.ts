// All subscriptions of one client. A session opens what is in here; there is no other list. Pure.

import { invalid, type SwitchyardError } from "../error.js";
import type { CheckedSpec } from "../spec.js";
import {
  count,
  type Command,
  type SessionResponse,
  type WireEnded,
  type WireEvents,
  type WireProgress,
  type WireGap,
  type WireSubscribed,
} from "../wire.js";
import type { Random } from "./backoff.js";
import type { Lost } from "./hands.js";
import { Heap } from "./heap.js";
import { Home } from "./home.js";
import { gapOf, type Incoming } from "./incoming.js";
import type { News } from "./news.js";
import type { Requests } from "./requests.js";
import { Row } from "./row.js";
import type { Verdict } from "./verdict.js";

/** One client has at most this many subscriptions, as the session of a hub has. */
const MOST_SUBSCRIPTIONS = 1_000_000;

/** An event in the hands of the application: its subscription, its sequence, and which delivery of it. */
export interface Hold {
  readonly id: number;
  readonly sequence: bigint;
  readonly copy: number;
}

/** What is in the hands of a client, all together. */
export interface Totals {
  readonly subscriptions: number;
  readonly events: number;
  readonly bytes: number;
  readonly unanswered: number;
  readonly fullWindows: number;
}

/** The subscriptions, by the id that each has for as long as it lives. */
export class Table {
  private readonly all = new Map<number, Row>();
  private nextId = 1;
  /** Those that may have something to write, in turn. What is before `head` was looked at. */
  private list: number[] = [];
  private head = 0;
  /** When something is to be done for which. A timer that is too early does no harm. */
  private readonly timers = new Heap();
  /** There is a session. */
  private isUp = false;
  /** It is to end: members get no more credit. */
  private isEnding = false;

  constructor(private readonly random: Random) {}

  /** Adds a subscription, which goes on behind `token` if there is one. */
  add(spec: CheckedSpec, token: string | undefined): number {
    if (this.all.size >= MOST_SUBSCRIPTIONS) {
      throw invalid("subscriptions", `are at the limit of ${MOST_SUBSCRIPTIONS}`);
    }
    const id = this.nextId;
    this.nextId += 1;
    this.all.set(id, new Row(id, spec, token, this.random));
    this.touch(id, 0);
    return id;
  }

  /** One of them, to read from. */
  get(id: number): Row | undefined {
    return this.all.get(id);
  }

  // Sessions.

  /** A session begins: all of it is to be opened. */
  sessionBegins(now: number): void {
    this.isUp = true;
    this.isEnding = false;
    // In the order of their ids, which is that of the map.
    for (const id of this.all.keys()) {
      this.touch(id, now);
    }
  }

  /**
   * The session is lost. True if what members hold is found by its name from now on; otherwise it is by the name of the session
   * before.
   */
  sessionLost(now: number, news: News[]): boolean {
    const members = [...this.all.values()].filter((one) => one.hands !== undefined && !one.isOver());
    const isHome = Home.isHere(members.map((one) => one.home));
    this.isUp = false;
    this.list = [];
    this.head = 0;
    this.timers.clear();
    for (const [id, one] of this.all) {
      one.isListed = false;
      one.timerAt = Infinity;
      one.sessionLost(now, news);
      if (one.isForgotten()) {
        this.all.delete(id);
      } else {
        this.touch(id, now);
      }
    }
    return isHome;
  }

  /** The session is to end: members take nothing new. */
  beQuiet(): void {
    this.isEnding = true;
  }

  /** No member has anything in hand, or waits for an answer. */
  isQuiet(): boolean {
    for (const one of this.all.values()) {
      if (!one.isQuiet()) {
        return false;
      }
    }
    return true;
  }

  /** Members leave the session, to come back in the next one. False as soon as they have. */
  membersLeave(now: number, news: News[]): boolean {
    let areLeft = false;
    for (const [id, one] of this.all) {
      if (one.hands !== undefined && one.isInSession()) {
        areLeft = true;
        one.leave(true, news);
        this.touch(id, now);
      }
    }
    return areLeft;
  }

  // What is written.

  /** Something may be to be written. */
  hasWrites(): boolean {
    return this.isUp && this.head < this.list.length;
  }

  /** The next command, and the id of its request. */
  write(now: number, requests: Requests): [number, Command] | undefined {
    while (this.hasWrites()) {
      const id = this.list[this.head] as number;
      this.head += 1;
      if (this.head === this.list.length || this.head >= 1024) {
        this.list = this.list.slice(this.head);
        this.head = 0;
      }
      const one = this.all.get(id);
      if (one === undefined) {
        continue;
      }
      one.isListed = false;
      const written = one.write(now, requests, this.isEnding);
      if (written !== undefined) {
        // In turn: one with much to say does not keep the others waiting.
        this.touch(id, now);
        return written;
      }
    }
    return undefined;
  }

  /** When something is to be done although nothing comes. */
  due(): number | undefined {
    return this.timers.first()?.at;
  }

  tick(now: number): void {
    for (let first = this.timers.first(); first !== undefined && first.at <= now; first = this.timers.first()) {
      this.timers.pop();
      const one = this.all.get(first.id);
      if (one !== undefined) {
        one.timerAt = Infinity;
        one.tick(now);
        this.touch(first.id, now);
      }
    }
  }

  // What comes.

  subscribed(now: number, subscribed: WireSubscribed, news: News[]): void {
    const id = count(subscribed.subscriptionId);
    this.with(id, now, (one) => one.subscribed(now, subscribed, news));
    this.answered(now, id, news);
  }

  events(now: number, events: WireEvents, news: News[]): void {
    this.with(count(events.subscriptionId), now, (one) => one.events(events, news));
  }

  progress(now: number, progress: WireProgress, news: News[]): void {
    this.with(count(progress.subscriptionId), now, (one) => one.progress(progress, news));
  }

  gap(now: number, gap: WireGap, news: News[]): void {
    const id = count(gap.subscriptionId);
    this.with(id, now, (one) => one.gap(gapOf(gap)));
    news.push({ of: "subscription", id });
  }

  /** The hub at this address has ended a subscription. `renews` is true where a fresh token may help. */
  ended(now: number, ended: WireEnded, address: string, renews: boolean, news: News[]): void {
    const id = count(ended.subscriptionId);
    this.with(id, now, (one) => one.ended(now, ended, address, renews, news));
    this.forgetIfOver(id);
  }

  acknowledged(
    now: number,
    request: number,
    acknowledged: NonNullable<SessionResponse["acknowledged"]>,
    news: News[],
  ): void {
    const id = count(acknowledged.subscriptionId);
    this.with(id, now, (one) => one.hands?.answered(now, request, acknowledged.results ?? [], news));
    this.answered(now, id, news);
  }

  /** What was said of events of a subscription was refused as a whole. */
  acknowledgeRefused(now: number, id: number, request: number, error: SwitchyardError, news: News[]): void {
    this.with(id, now, (one) => one.hands?.refused(now, request, error, news));
    this.answered(now, id, news);
  }

  /** So was a `subscribe`, by the hub at this address. */
  subscribeRefused(now: number, id: number, address: string, error: SwitchyardError, news: News[]): void {
    this.with(id, now, (one) => one.refused(error, address, news));
    this.forgetIfOver(id);
  }

  /** Some words were answered: somebody may wait for that, or it may have been the last of one that nobody reads. */
  private answered(now: number, id: number, news: News[]): void {
    news.push({ of: "subscription", id });
    this.leaveIfDropped(now, id, news);
  }

  // What the application does.

  take(now: number, id: number): Incoming | undefined {
    return this.with(id, now, (one) => one.take());
  }

  /** How a subscription ended; `undefined` while it goes on. */
  takeEnd(id: number): { readonly error: SwitchyardError | undefined } | undefined {
    const one = this.all.get(id);
    return one === undefined ? { error: undefined } : one.takeEnd();
  }

  /** An event is settled. False when it is no longer in hand. */
  settleEvent(now: number, { id, sequence, copy }: Hold, verdict: Verdict, ticket: number | undefined): boolean {
    const isSettled = this.with(id, now, (one) => {
      const bytes = one.hands?.settle(sequence, copy, verdict, ticket);
      if (bytes !== undefined) {
        one.returned(bytes);
      }
      return bytes !== undefined;
    });
    return isSettled === true;
  }

  /** An event is dropped, and nothing was said of it. */
  letGo(now: number, { id, sequence, copy }: Hold, news: News[]): void {
    this.with(id, now, (one) => {
      const bytes = one.hands?.letGo(sequence, copy);
      if (bytes !== undefined) {
        one.returned(bytes);
      }
    });
    this.leaveIfDropped(now, id, news);
  }

  extend(now: number, { id, sequence, copy }: Hold, time: number | undefined): void {
    this.with(id, now, (one) => one.hands?.extend(sequence, copy, time));
  }

  finishBatch(now: number, id: number, batch: number, news: News[]): void {
    this.with(id, now, (one) => one.finishBatch(batch));
    this.leaveIfDropped(now, id, news);
  }

  dropBatch(now: number, id: number, batch: number, news: News[]): void {
    this.with(id, now, (one) => one.dropBatch(batch));
    this.leaveIfDropped(now, id, news);
  }

  /** Nobody reads a subscription any more. It ends when nobody has anything of it. */
  abandon(now: number, id: number, news: News[]): void {
    this.with(id, now, (one) => one.abandon());
    this.leaveIfDropped(now, id, news);
  }

  private leaveIfDropped(now: number, id: number, news: News[]): void {
    const one = this.all.get(id);
    if (one?.isDropped === true && !one.isInUse()) {
      one.leave(false, news);
      this.touch(id, now);
    }
    this.forgetIfOver(id);
  }

  private forgetIfOver(id: number): void {
    if (this.all.get(id)?.isForgotten() === true) {
      this.all.delete(id);
    }
  }

  // Closing.

  /** Nothing more is given to the application. */
  hush(now: number, news: News[]): void {
    for (const id of this.all.keys()) {
      this.with(id, now, (one) => one.hush());
      // Whoever waits for what is next has waited long enough.
      news.push({ of: "subscription", id });
    }
  }

  /** Takes out of the hands of the application what it has of groups: it goes back when its subscription ends. */
  release(now: number): void {
    for (const id of this.all.keys()) {
      this.with(id, now, (one) => one.release());
    }
  }

  /** Ends, in order, all subscriptions of which nobody has anything. False when all are over. */
  leave(now: number, news: News[]): boolean {
    let areLeft = false;
    for (const [id, one] of this.all) {
      if (!one.isInUse()) {
        one.leave(false, news);
      }
      areLeft ||= !one.isOver();
      this.touch(id, now);
    }
    return areLeft;
  }

  /** Ends everything here: with an error, or because the client is over. */
  fail(error: SwitchyardError | undefined, news: News[]): void {
    this.isUp = false;
    for (const one of this.all.values()) {
      one.fail(error, news);
    }
  }

  // What others ask.

  totals(): Totals {
    let [events, bytes, unanswered, fullWindows] = [0, 0, 0, 0];
    for (const one of this.all.values()) {
      const held = one.held();
      events += held.events;
      bytes += held.bytes;
      unanswered += one.hands?.unanswered ?? 0;
      fullWindows += one.fullWindows;
    }
    return { subscriptions: this.all.size, events, bytes, unanswered, fullWindows };
  }

  /** How many events or batches the application has, and how many words are not answered. */
  left(): { readonly events: number; readonly acknowledgements: number } {
    let [events, acknowledgements] = [0, 0];
    for (const one of this.all.values()) {
      events += one.withApplication;
      acknowledgements += one.hands?.unanswered ?? 0;
    }
    return { events, acknowledgements };
  }

  isOver(id: number): boolean {
    return this.all.get(id)?.isOver() ?? true;
  }

  /** A mark behind all that was said of events of a subscription so far. */
  mark(id: number): number {
    return this.all.get(id)?.hands?.mark() ?? 0;
  }

  /** The leases that were lost, once everything before a mark is answered. */
  settled(id: number, mark: number): Lost | undefined {
    const hands = this.all.get(id)?.hands;
    if (hands === undefined) {
      return { sequences: [], count: 0 };
    }
    return hands.isSettled(mark) ? hands.takeLost() : undefined;
  }

  /** Does something with a subscription, after which it may have something to write or to wait for. */
  private with<T>(id: number, now: number, act: (one: Row) => T): T | undefined {
    const one = this.all.get(id);
    if (one === undefined) {
      return undefined;
    }
    const done = act(one);
    this.touch(id, now);
    return done;
  }

  private touch(id: number, now: number): void {
    const one = this.all.get(id);
    if (one === undefined) {
      return;
    }
    if (this.isUp && !one.isListed) {
      one.isListed = true;
      this.list.push(id);
    }
    const at = one.due(now);
    if (at !== undefined && at < one.timerAt) {
      one.timerAt = at;
      this.timers.push(at, id);
    }
  }
}

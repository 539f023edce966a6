// What is to be published: a queue with a limit, from the call of the application to the hub's answer for every event. Pure.
//
// Order is that of the calls, over all sessions: what a lost session left unanswered is written first, in order. Every event
// has its id by now, so that a stream stores it once. What belongs to no stream could be delivered twice. Whether it does is
// not known here, so the hub is asked before anything doubtful is written again: a publish with a precondition that never
// holds is a duplicate if the stream has the event, a mismatch if it does not, and refused where there is no stream.

import { failure, type SwitchyardError } from "../error.js";
import { count, publishFrame, type WireLimits, type WirePublishResult } from "../wire.js";
import { Backoff, type Random } from "./backoff.js";
import { type Amount, amountOf, Entry, isFailure, isTransient, type NewPublish, outcomeOf } from "./entry.js";
import { Heap } from "./heap.js";
import type { News, Outcome } from "./news.js";
import type { Requests } from "./requests.js";
import { Tickets } from "./tickets.js";

/** Publishes that were written and are not answered: with more, those that wait go together. */
const MOST_REQUESTS = 64;
/** What calls that are written together have at most. */
const MOST_TOGETHER: Amount = { events: 500, bytes: 512 * 1024 };
/** What a frame has besides its events, in bytes. */
const FRAME_OVERHEAD = 160;
/** The limits of a hub that does not say. */
const USUAL_LIMITS = { frameBytes: 4 * 1024 * 1024, events: 10_000 };
/** How long to wait before what a hub could not take is written again: at first, and in the end. */
const REWRITE_WAITS = { shortest: 100, longest: 5000 };
/** The precondition that never holds. */
const NEVER = { lastSequence: "9223372036854775807" };

/** What was written and is not answered: what was left of some calls, or whether the stream has one event of a call. */
type Sent = { readonly calls: readonly number[] } | { readonly call: number; readonly at: number };

/** All calls that are not answered. */
export class Publishes {
  private heldEvents = 0;
  private heldBytes = 0;
  private readonly all = new Map<number, Entry>();
  /** What is to be written, in order. */
  private readonly queue = new Tickets();
  /** Calls of which the hub was asked something, and how many questions it has not answered. */
  private readonly questions = new Map<number, number>();
  private readonly sent = new Map<number, Sent>();
  private readonly deadlines = new Heap();
  private next = 1;
  /** Nothing is written before this. */
  private notBefore = 0;
  private readonly backoff: Backoff;
  /** The session is to end: nothing new is written. */
  private isEnding = false;
  private mostFrameBytes = USUAL_LIMITS.frameBytes;
  private mostEvents = USUAL_LIMITS.events;

  /** `most` is what may wait; `renews` is true where a fresh token may help. */
  constructor(
    private readonly most: Amount,
    private readonly renews: boolean,
    random: Random,
  ) {
    this.backoff = new Backoff(REWRITE_WAITS.shortest, REWRITE_WAITS.longest, random);
  }

  /** Whether so much can ever wait. */
  fits(amount: Amount): boolean {
    return amount.events <= this.most.events && amount.bytes <= this.most.bytes;
  }

  /** Whether so much can wait now. */
  hasRoom(amount: Amount): boolean {
    const { events, bytes } = this.most;
    return this.heldEvents + amount.events <= events && this.heldBytes + amount.bytes <= bytes;
  }

  /** Takes a call into the queue, where there is room for it. Its ticket comes back with the results. */
  add(call: NewPublish): number {
    const ticket = this.next;
    this.next += 1;
    const entry = new Entry(call);
    this.heldEvents += entry.amount.events;
    this.heldBytes += entry.amount.bytes;
    this.all.set(ticket, entry);
    this.queue.add(ticket);
    this.deadlines.push(entry.deadline, ticket);
    return ticket;
  }

  // Sessions.

  sessionBegins(limits: WireLimits | undefined): void {
    this.mostFrameBytes = count(limits?.maxFrameBytes) || USUAL_LIMITS.frameBytes;
    this.mostEvents = count(limits?.maxPublishEvents) || USUAL_LIMITS.events;
    this.isEnding = false;
  }

  /** What was written and not answered is doubtful, and to be written first in the next session. */
  sessionLost(news: News[]): void {
    const again = new Set(this.questions.keys());
    this.questions.clear();
    for (const sent of this.sent.values()) {
      for (const ticket of "calls" in sent ? sent.calls : [sent.call]) {
        again.add(ticket);
      }
    }
    this.sent.clear();
    this.notBefore = 0;
    this.isEnding = false;
    for (const ticket of again) {
      const entry = this.all.get(ticket);
      if (entry !== undefined) {
        entry.sessionLost();
        this.queueAgain(ticket, entry, news);
      }
    }
  }

  /** While the session is to end, nothing new is written. */
  beQuiet(isQuiet: boolean): void {
    this.isEnding = isQuiet;
  }

  /** Nothing is unanswered. */
  isQuiet(): boolean {
    return this.sent.size === 0;
  }

  // What is written.

  /** Something is to be written now. */
  hasWrites(now: number): boolean {
    const first = this.first();
    if (first === undefined || this.isEnding || now < this.notBefore || this.sent.size >= MOST_REQUESTS) {
      return false;
    }
    return first.question() !== undefined || this.questions.size === 0;
  }

  private first(): Entry | undefined {
    const ticket = this.queue.first();
    return ticket === undefined ? undefined : this.all.get(ticket);
  }

  /** The next frame, if there is one. */
  write(now: number, requests: Requests, news: News[]): string | undefined {
    while (this.hasWrites(now)) {
      const ticket = this.queue.first() as number;
      const entry = this.all.get(ticket) as Entry;
      const at = entry.question();
      if (at !== undefined) {
        return this.ask(ticket, entry, at, requests);
      }
      const excess = entry.excess(this.mostEvents, this.mostFrameBytes - FRAME_OVERHEAD);
      if (excess === undefined) {
        return this.writeCalls(requests);
      }
      entry.fill(excess);
      this.finish(ticket, entry, news);
    }
    return undefined;
  }

  /** Asks whether the stream has an event, by all that it knows an event by. */
  private ask(ticket: number, entry: Entry, at: number, requests: Requests): string {
    const request = requests.open({ to: "publish" });
    this.sent.set(request, { call: ticket, at });
    this.questions.set(ticket, (this.questions.get(ticket) ?? 0) + 1);
    entry.know(at, "asked");
    if (entry.question() === undefined) {
      this.queue.remove(ticket);
    }
    return publishFrame(request, [entry.keyOf(at)], NEVER);
  }

  /** Writes what is first, and what may go with it. */
  private writeCalls(requests: Requests): string {
    const mostEvents = Math.min(MOST_TOGETHER.events, this.mostEvents);
    const mostBytes = Math.min(MOST_TOGETHER.bytes, this.mostFrameBytes - FRAME_OVERHEAD);
    const calls: number[] = [];
    const events: string[] = [];
    let bytes = 0;
    for (const ticket of this.queue) {
      const entry = this.all.get(ticket) as Entry;
      const pending = entry.pending();
      const amount = amountOf(pending);
      const fits = events.length + amount.events <= mostEvents && bytes + amount.bytes <= mostBytes;
      if (calls.length > 0 && (!fits || entry.isAlone() || entry.question() !== undefined)) {
        break;
      }
      calls.push(ticket);
      events.push(...pending.map((event) => event.json));
      bytes += amount.bytes;
      if (entry.isAlone()) {
        break;
      }
    }
    const request = requests.open({ to: "publish" });
    const precondition = this.all.get(calls[0] as number)?.precondition;
    for (const ticket of calls) {
      this.queue.remove(ticket);
      (this.all.get(ticket) as Entry).isInFlight = true;
    }
    this.sent.set(request, { calls });
    return publishFrame(request, events, precondition);
  }

  // What comes.

  /** The hub has answered a publish. */
  answered(now: number, request: number, results: readonly WirePublishResult[], news: News[]): void {
    const sent = this.sent.get(request);
    this.sent.delete(request);
    if (sent === undefined) {
      return;
    }
    if ("call" in sent) {
      this.learned(now, sent.call, sent.at, outcomeOf(results[0]), news);
      return;
    }
    let [at, pause]: [number, number | undefined] = [0, undefined];
    const next = (): WirePublishResult | undefined => {
      at += 1;
      return results[at - 1];
    };
    for (const ticket of sent.calls) {
      const entry = this.all.get(ticket);
      if (entry === undefined) {
        continue;
      }
      entry.isInFlight = false;
      const told = entry.takeResults(next, this.renews);
      pause = told === undefined ? pause : Math.max(pause ?? 0, told);
      this.queueAgain(ticket, entry, news);
    }
    if (pause === undefined) {
      this.backoff.reset();
    } else {
      this.pause(now, pause);
    }
  }

  /** The hub refused a publish as a whole: nothing of it was done. */
  refused(now: number, request: number, error: SwitchyardError, news: News[]): void {
    const sent = this.sent.get(request);
    this.sent.delete(request);
    if (sent === undefined) {
      return;
    }
    if ("call" in sent) {
      this.learned(now, sent.call, sent.at, error, news);
      return;
    }
    const again = isTransient(error, this.renews);
    for (const ticket of sent.calls) {
      const entry = this.all.get(ticket);
      if (entry === undefined) {
        continue;
      }
      entry.isInFlight = false;
      if (!again && sent.calls.length > 1) {
        // One of them may be the cause.
        entry.setAlone();
      } else if (!again) {
        entry.fill(error);
      }
      this.queueAgain(ticket, entry, news);
    }
    if (again) {
      this.pause(now, error.retryAfterMs ?? 0);
    }
  }

  /** The answer to a question. */
  private learned(now: number, ticket: number, at: number, answer: Outcome, news: News[]): void {
    const left = (this.questions.get(ticket) ?? 1) - 1;
    if (left > 0) {
      this.questions.set(ticket, left);
    } else {
      this.questions.delete(ticket);
    }
    const entry = this.all.get(ticket);
    if (entry === undefined) {
      return;
    }
    if (!isFailure(answer)) {
      entry.set(at, answer);
    } else if (answer.reason === "SEQUENCE_MISMATCH") {
      entry.know(at, "inStream");
    } else if (answer.reason === "CONFIG_MISMATCH") {
      entry.set(at, noStream());
    } else if (isTransient(answer, this.renews)) {
      entry.know(at, "nothing");
      this.pause(now, answer.retryAfterMs ?? 0);
    } else {
      entry.set(at, answer.ofKind("unknown"));
    }
    if (left <= 0) {
      this.queueAgain(ticket, entry, news);
    }
  }

  /** What is left of a call is to be written again; or it is finished. */
  private queueAgain(ticket: number, entry: Entry, news: News[]): void {
    if (entry.isTold || entry.isComplete()) {
      this.finish(ticket, entry, news);
    } else {
      this.queue.add(ticket);
    }
  }

  private pause(now: number, told: number): void {
    this.notBefore = Math.max(this.notBefore, now + Math.max(told, this.backoff.next()));
  }

  // Time.

  /** When something is to be done although nothing comes. */
  due(now: number): number | undefined {
    const write = this.notBefore > now && this.queue.first() !== undefined ? this.notBefore : Infinity;
    const due = Math.min(this.deadlines.first()?.at ?? Infinity, write);
    return due < Infinity ? due : undefined;
  }

  /** Tells those whose deadline has passed. */
  tick(now: number, news: News[]): void {
    for (let first = this.deadlines.first(); first !== undefined && first.at <= now; first = this.deadlines.first()) {
      this.deadlines.pop();
      const entry = this.all.get(first.id);
      if (entry === undefined) {
        continue;
      }
      const results = entry.resultsAtDeadline();
      const isOpen = entry.isInFlight || this.questions.has(first.id);
      entry.isTold = true;
      news.push({ of: "published", ticket: first.id, results });
      if (!isOpen) {
        this.finish(first.id, entry, news);
      }
    }
  }

  private finish(ticket: number, entry: Entry, news: News[]): void {
    this.queue.remove(ticket);
    this.all.delete(ticket);
    this.heldEvents -= entry.amount.events;
    this.heldBytes -= entry.amount.bytes;
    if (!entry.isTold) {
      news.push({ of: "published", ticket, results: entry.results() });
    }
    news.push({ of: "room" });
    if (this.deadlines.size > 2 * this.all.size + 64) {
      this.deadlines.retain((id) => this.all.has(id));
    }
  }

  /** The client is over: what was never written is not done, and of the rest nobody knows. */
  giveUp(error: SwitchyardError, news: News[]): void {
    for (const [ticket, entry] of this.all) {
      entry.giveUp(error);
      this.finish(ticket, entry, news);
    }
    this.sent.clear();
    this.questions.clear();
  }

  // What others ask.

  isEmpty(): boolean {
    return this.all.size === 0;
  }

  held(): Amount {
    return { events: this.heldEvents, bytes: this.heldBytes };
  }

  /** How many events may have been published, and were not answered; and how many were certainly not. */
  left(): { readonly unknown: number; readonly unsent: number } {
    let [unknown, unsent] = [0, 0];
    for (const entry of this.all.values()) {
      const events = entry.isTold ? 0 : entry.pending().length;
      if (entry.isDoubtful()) {
        unknown += events;
      } else {
        unsent += events;
      }
    }
    return { unknown, unsent };
  }
}

/** Why an event is not written again. */
function noStream(): SwitchyardError {
  const text =
    "the session was lost before the answer came, and no stream holds the topic: published again, the event could be " +
    "delivered twice";
  return failure("unknown", "UNKNOWN", "NO_STREAM", text);
}

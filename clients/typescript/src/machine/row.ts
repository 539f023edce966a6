// A row of the table: one subscription, over all the sessions that it lives through: what the hub is asked for, what came, and what is told to
// whoever reads it. Pure.

import { ofStatus, type SwitchyardError } from "../error.js";
import { sizesOf } from "../size.js";
import type { CheckedSpec } from "../spec.js";
import {
  count,
  exact,
  millis,
  type Command,
  type WireEnded,
  type WireEvents,
  type WireProgress,
  type WireSpec,
  type WireStart,
  type WireSubscribed,
} from "../wire.js";
import { Backoff, type Random } from "./backoff.js";
import { Ledger, type Size } from "./credit.js";
import { Hands, leaseLost } from "./hands.js";
import { Home } from "./home.js";
import { type Arrived, type Incoming, type Missing, Queue, unknownGap } from "./incoming.js";
import type { News } from "./news.js";
import { Place } from "./place.js";
import { FIXED_IDS, type Requests } from "./requests.js";

/** How long to wait before a subscription is opened again that ended by itself; and where the hub is short of something. */
const REOPEN_WAITS = { shortest: 100, longest: 5000, longestWhenExhausted: 30_000 };
/** One that was open for this long has worked: the next wait is short again. */
const REOPEN_WORKED_AFTER = 10_000;
/** So many unanswered words, or as many as the window has events, are no reason to stop the hub. */
const FREE_WORDS = 1000;

/**
 * Where a subscription is in its life: to be opened as soon as there is a session; asked for; open; ended, and to be opened
 * again not before a time or, if it ended with its session, with the next; to be ended in order; over.
 */
type Phase =
  | { readonly is: "idle" | "asked" | "open" | "over" }
  | { readonly is: "waiting"; readonly until: number; readonly withSession: boolean }
  | { readonly is: "leaving"; isWritten: boolean; readonly returns: boolean };

/** How it ended, until that is told. */
type End = { readonly error: SwitchyardError | undefined };

/** Where a subscription is, from when it was opened last. */
export interface Opened {
  /** The epoch of the stream; 0 for a live subscription. */
  readonly epoch: bigint;
  /** The first sequence that can come; a member of a group may also get older ones, as a retry. */
  readonly startSequence: bigint;
  /** The earliest sequence the stream has; one more than the latest when it is empty. */
  readonly earliestSequence: bigint;
  readonly latestSequence: bigint;
  /** How long a member may take to settle an event, in milliseconds, as its group is configured. */
  readonly ackDeadlineMs: number | undefined;
}

/** One subscription. */
export class Row {
  phase: Phase = { is: "idle" };
  /** For a member that acknowledges. */
  readonly hands: Hands | undefined;
  /** Which session such a member comes back to. */
  readonly home = new Home();
  fullWindows = 0;
  opened: Opened | undefined;
  lag = 0;
  /** It is in the list of those that may have something to write. */
  isListed = false;
  /** The earliest time for which the table was asked to wake it. */
  timerAt = Infinity;
  /** Nobody reads it any more. */
  isDropped = false;
  private readonly ledger: Ledger;
  private readonly incoming = new Queue();
  /** For one that reads a stream by itself. */
  private readonly place: Place | undefined;
  private readonly backoff: Backoff;
  private openSince = 0;
  /** Behind which sequence one goes on that began with what is new and has no token yet. */
  private pinned: bigint | undefined;
  private isCaughtUp = false;
  /** Events until it has all that it wanted. */
  private left: number | undefined;
  private end: End | undefined;
  /** Batches that the application has, where it says what is done. */
  private readonly batches = new Set<number>();
  private tracksBatches: boolean;
  /** Nothing more is given to the application. */
  private isDeaf = false;
  private wasFull = false;

  constructor(
    readonly id: number,
    readonly spec: CheckedSpec,
    token: string | undefined,
    random: Random,
  ) {
    this.ledger = new Ledger(spec.window);
    this.place = spec.hasPlace ? new Place(token) : undefined;
    this.tracksBatches = spec.keepsPlace;
    this.hands = spec.acknowledges ? new Hands() : undefined;
    this.backoff = new Backoff(REOPEN_WAITS.shortest, REOPEN_WAITS.longest, random);
    this.left = spec.wire.maxEvents === undefined ? undefined : count(spec.wire.maxEvents);
  }

  // What is written.

  /**
   * The next command of this subscription, if there is one. `isQuiet` is for a session that is to end: its members get no more
   * credit.
   */
  write(now: number, requests: Requests, isQuiet: boolean): [number, Command] | undefined {
    const { phase, hands, id } = this;
    if (phase.is === "idle") {
      if (this.staysClosed(isQuiet)) {
        return undefined;
      }
      const spec = this.subscribe();
      this.home.wasAsked = true;
      this.phase = { is: "asked" };
      return [requests.open({ to: "subscribe", id }), { subscribe: { subscriptionId: id, spec } }];
    }
    const isLeaving = phase.is === "leaving" && !phase.isWritten;
    if (hands !== undefined && (phase.is === "open" || isLeaving)) {
      const acknowledge = hands.write(now, requests.next());
      if (acknowledge !== undefined) {
        const command = { acknowledge: { subscriptionId: id, ...acknowledge } };
        return [requests.open({ to: "acknowledge", id }), command];
      }
    }
    if (isLeaving) {
      if (hands?.hasWaitingWords() === true) {
        return undefined;
      }
      phase.isWritten = true;
      return [FIXED_IDS.unsubscribe, { unsubscribe: { subscriptionId: id } }];
    }
    if (phase.is !== "open" || this.isDeaf || this.withholds(isQuiet)) {
      return undefined;
    }
    const grant = this.ledger.grant();
    if (grant === undefined) {
      return undefined;
    }
    this.wasFull = false;
    return [FIXED_IDS.credit, { credit: { subscriptionId: id, credit: wireCredit(grant) } }];
  }

  /**
   * It is not to be opened in this session: a member would only leave again, and one that gives nothing to the application any
   * more has nothing to say either, unless it is a member.
   */
  private staysClosed(isQuiet: boolean): boolean {
    return this.hands !== undefined ? isQuiet : this.isDeaf;
  }

  /** No credit is given now. Words that the hub does not answer must not become ever more. */
  private withholds(isQuiet: boolean): boolean {
    const most = Math.max(FREE_WORDS, this.spec.window.events);
    return this.hands !== undefined && (isQuiet || this.hands.unanswered > most);
  }

  /** What opens it in this session. The one place where the table becomes a command. */
  private subscribe(): WireSpec {
    const spec = { ...this.spec.wire };
    const start = this.start();
    if (start !== undefined) {
      spec.start = start;
    }
    if (this.left !== undefined) {
      spec.maxEvents = String(this.left);
    }
    // Even nothing is explicit credit.
    spec.credit = this.isDeaf ? {} : wireCredit(this.ledger.begin());
    if (this.hands !== undefined && this.home.wasAsked) {
      // A hub that had it before keeps the leases of exactly these, and sends everything else again at once.
      spec.reattach = { heldSequences: this.hands.heldSequences().map(String) };
    }
    return spec;
  }

  /** Where it goes on, if it has begun. */
  private start(): WireStart | undefined {
    const reached = this.place?.reached;
    if (reached !== undefined) {
      return { resumeToken: reached };
    }
    return this.pinned === undefined ? undefined : { afterSequence: String(this.pinned) };
  }

  // What comes.

  subscribed(now: number, subscribed: WireSubscribed, news: News[]): void {
    this.home.found(subscribed.reattached === true);
    // What was said of all other events is still to be said: their leases are kept, or they are done already. A hub of an
    // earlier version names none, and says so when it is asked.
    this.hands?.leasesLost((subscribed.lostSequences ?? []).map(exact), news);
    if (this.phase.is !== "asked") {
      // It is to be ended.
      return;
    }
    this.phase = { is: "open" };
    this.openSince = now;
    const before = this.opened;
    this.opened = {
      epoch: exact(subscribed.epoch),
      startSequence: exact(subscribed.startSequence),
      earliestSequence: exact(subscribed.earliestSequence),
      latestSequence: exact(subscribed.latestSequence),
      ackDeadlineMs: millis(subscribed.ackDeadline),
    };
    const hasNoToken = this.place !== undefined && this.place.reached === undefined;
    if (before !== undefined) {
      if (!this.spec.hasPlace && !this.spec.acknowledges) {
        this.gap(unknownGap("away"));
      } else if (hasNoToken && before.epoch !== this.opened.epoch) {
        // With a token the hub would have said so.
        this.gap(unknownGap("epoch"));
      }
    }
    if (hasNoToken && this.spec.startsNew) {
      const behind = this.opened.startSequence - 1n;
      this.pinned = behind > 0n ? behind : 0n;
    }
  }

  events(events: WireEvents, news: News[]): void {
    const sizes = sizesOf(events);
    // Leases of what comes to a member that leaves are given back as it leaves.
    const refuses = this.isDeaf || (this.hands !== undefined && this.phase.is === "leaving");
    const arrived: Arrived[] = [];
    let bytesTaken = 0;
    (events.events ?? []).forEach((event, at) => {
      const bytes = sizes[at] ?? 0;
      this.ledger.arrived(1, bytes);
      const sequence = exact(event.sequence);
      const copy = refuses ? undefined : this.hands === undefined ? 0 : this.hands.arrive(sequence, bytes);
      if (copy === undefined) {
        this.ledger.returned(1, bytes);
      } else {
        bytesTaken += bytes;
        arrived.push({ event, sequence, copy });
      }
    });
    this.isCaughtUp = false;
    if (this.left !== undefined) {
      this.left = Math.max(this.left - arrived.length, 0);
    }
    if (arrived.length === 0) {
      return;
    }
    if (this.ledger.isFull() && !this.wasFull) {
      this.wasFull = true;
      this.fullWindows += 1;
    }
    const token = events.resumeToken ?? "";
    const batch = this.place?.arrived(token) ?? 0;
    this.incoming.pushEvents(arrived, batch, token, { events: arrived.length, bytes: bytesTaken });
    news.push({ of: "subscription", id: this.id });
  }

  progress(progress: WireProgress, news: News[]): void {
    if (!this.isDeaf) {
      this.place?.passed(progress.resumeToken ?? "");
    }
    this.lag = count(progress.lag);
    const isCaughtUp = progress.caughtUp === true;
    if (isCaughtUp && !this.isCaughtUp && !this.isDeaf) {
      this.incoming.pushCaughtUp();
    }
    this.isCaughtUp = isCaughtUp;
    // The place may have moved, which somebody may want to keep.
    news.push({ of: "subscription", id: this.id });
  }

  gap(missing: Missing): void {
    if (!this.isDeaf) {
      this.incoming.pushGap(missing);
    }
  }

  /** The hub at this address has ended it. `renews` is true where a fresh token may help. */
  ended(now: number, ended: WireEnded, address: string, renews: boolean, news: News[]): void {
    const { reason } = ended;
    const status = ended.status ?? {};
    const error = ofStatus("ended", status).at(`${this.spec.name} at ${address}`);
    if (!this.isDeaf) {
      this.place?.passed(ended.resumeToken ?? "");
    }
    this.forgetUntaken(news);
    if (this.phase.is !== "asked") {
      this.home.left();
    }
    if (now - this.openSince >= REOPEN_WORKED_AFTER) {
      this.backoff.reset();
    }
    const expired = reason === "END_REASON_CREDENTIAL_EXPIRED" || reason === "END_REASON_CREDENTIAL_MISSING";
    const isOk = (status.code ?? 0) === 0 && reason !== "END_REASON_CLIENT_UNSUBSCRIBED";
    if (this.phase.is === "leaving" && this.phase.returns) {
      this.phase = { is: "waiting", until: Infinity, withSession: true };
    } else if (this.phase.is === "leaving" || this.phase.is === "over" || this.left === 0 || isOk) {
      this.finish({ error: undefined }, news);
    } else if (ended.retry?.retry === true || (renews && expired)) {
      const told = ended.retry?.retry === true ? (millis(ended.retry.delay) ?? 0) : 0;
      const isExhausted = error.code === "RESOURCE_EXHAUSTED";
      const longest = isExhausted ? REOPEN_WAITS.longestWhenExhausted : REOPEN_WAITS.longest;
      const until = now + Math.max(told, this.backoff.next(longest));
      this.phase = { is: "waiting", until, withSession: reason === "END_REASON_DRAINING" };
    } else {
      this.finish({ error }, news);
    }
  }

  /** The hub refused to open it, in a way that names no subscription. */
  refused(error: SwitchyardError, address: string, news: News[]): void {
    this.finish({ error: error.ofKind("ended").at(`${this.spec.name} at ${address}`) }, news);
  }

  // What time and sessions bring.

  /** When something is to be done although nothing comes. */
  due(now: number): number | undefined {
    switch (this.phase.is) {
      case "waiting":
        return this.phase.until < Infinity ? this.phase.until : undefined;
      case "open":
      case "leaving":
        return this.hands?.due(now);
      default:
        return undefined;
    }
  }

  tick(now: number): void {
    if (this.phase.is === "waiting" && now >= this.phase.until) {
      this.phase = { is: "idle" };
    }
  }

  sessionLost(now: number, news: News[]): void {
    this.forgetUntaken(news);
    const { phase } = this;
    if (this.isInSession()) {
      this.home.lost();
    }
    if (phase.is === "open" && now - this.openSince >= REOPEN_WORKED_AFTER) {
      this.backoff.reset();
    }
    if (phase.is === "asked" || phase.is === "open") {
      if (this.left === 0) {
        this.finish({ error: undefined }, news);
      } else {
        this.phase = { is: "idle" };
      }
    } else if (phase.is === "leaving" && !phase.returns) {
      this.finish({ error: undefined }, news);
    } else if (phase.is === "leaving" || (phase.is === "waiting" && phase.withSession)) {
      this.phase = { is: "idle" };
    }
  }

  /** Events of a group that the application has not taken come again, to whoever is there then. */
  private forgetUntaken(news: News[]): void {
    if (this.hands === undefined) {
      return;
    }
    const { events, bytes } = this.hands.sessionLost(news);
    if (events > 0) {
      this.incoming.forgetEvents();
      this.ledger.returned(events, bytes);
    }
    // Somebody may wait until everything is settled.
    news.push({ of: "subscription", id: this.id });
  }

  private finish(end: End, news: News[]): void {
    if (this.phase.is !== "over") {
      this.phase = { is: "over" };
      this.end = end;
    }
    this.hands?.giveUp(leaseLost(), news);
    news.push({ of: "subscription", id: this.id });
  }

  /** The client has failed for good, or is over. */
  fail(error: SwitchyardError | undefined, news: News[]): void {
    if (error === undefined) {
      this.hush();
    }
    this.finish({ error }, news);
  }

  // What the application does.

  /** The next thing for the application. `undefined` when there is nothing now, or when it is over. */
  take(): Incoming | undefined {
    const incoming = this.isDeaf ? undefined : this.incoming.pop();
    if (incoming?.is === "events") {
      if (this.hands !== undefined) {
        for (const { sequence } of incoming.events) {
          this.hands.taken(sequence);
        }
      } else {
        this.ledger.returned(incoming.size.events, incoming.size.bytes);
      }
      if (this.tracksBatches) {
        this.batches.add(incoming.batch);
      }
    }
    return incoming;
  }

  /** How it ended, once everything is taken. An error is told once. `undefined` while it goes on. */
  takeEnd(): End | undefined {
    if (this.phase.is !== "over" && !this.isDeaf) {
      return undefined;
    }
    const end = this.isDropped ? undefined : this.end;
    this.end = undefined;
    return end ?? { error: undefined };
  }

  /** Some of what the application had of a group is out of its hands. */
  returned(bytes: number): void {
    this.ledger.returned(1, bytes);
  }

  /** A batch is done. */
  finishBatch(batch: number): void {
    this.place?.finish(batch);
    this.tracksBatches = this.place !== undefined;
    this.batches.delete(batch);
  }

  /** The application has dropped a batch that is not done. */
  dropBatch(batch: number): void {
    this.place?.dropBatch(batch);
    this.batches.delete(batch);
  }

  /** Gives the application nothing more, and forgets what it has not taken. */
  hush(): void {
    this.isDeaf = true;
    const { events, bytes } = this.incoming.clear();
    this.ledger.returned(events, bytes);
    this.hands?.forgetUntaken();
  }

  /** What the application has of it counts as given back. */
  release(): void {
    this.batches.clear();
    if (this.hands !== undefined) {
      const { events, bytes } = this.hands.release();
      this.ledger.returned(events, bytes);
    }
  }

  /** Nobody reads it any more. */
  abandon(): void {
    this.isDropped = true;
    this.hush();
  }

  /** Ends it in order, for good or until the next session. Words that wait are written first. */
  leave(returns: boolean, news: News[]): void {
    const { phase } = this;
    if (phase.is === "asked" || phase.is === "open") {
      this.phase = { is: "leaving", isWritten: false, returns };
    } else if (phase.is === "leaving") {
      this.phase = { ...phase, returns: returns && !this.isDeaf };
    } else if (phase.is !== "over" && !returns) {
      this.finish({ error: undefined }, news);
    }
  }

  // What others ask.

  isOpen(): boolean {
    return this.phase.is === "open";
  }

  /** The hub knows of it in this session. */
  isInSession(): boolean {
    return this.phase.is === "asked" || this.phase.is === "open" || this.phase.is === "leaving";
  }

  isOver(): boolean {
    return this.phase.is === "over";
  }

  /** Nobody reads it, and nobody has anything of it. */
  isForgotten(): boolean {
    return this.isDropped && this.isOver() && !this.isInUse();
  }

  /** The application has something of it, or waits for an answer. */
  isInUse(): boolean {
    return this.hands === undefined ? this.batches.size > 0 : !this.isQuiet();
  }

  /** A member has nothing in hand and waits for no answer. */
  isQuiet(): boolean {
    return this.hands === undefined || this.hands.inHand + this.hands.unanswered === 0;
  }

  /** It has all that the stream has, as far as the hub has said. */
  hasCaughtUp(): boolean {
    return this.isCaughtUp && this.isOpen();
  }

  /** Where the next run of the program would go on. */
  done(): string | undefined {
    return this.place?.done;
  }

  held(): Size {
    return this.ledger.held();
  }

  /** How many events of a group, or batches, the application has. */
  get withApplication(): number {
    return this.hands === undefined ? this.batches.size : this.hands.inHand;
  }
}

function wireCredit({ events, bytes }: Size): { events?: string; bytes?: string } {
  return { ...(events > 0 && { events: String(events) }), ...(bytes > 0 && { bytes: String(bytes) }) };
}

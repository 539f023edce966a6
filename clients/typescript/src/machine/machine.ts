// The state machine of a client: what it does about every frame, every call and every passing of time. Pure.
//
// One object owns the whole state: the session, the table of subscriptions, the queue of publishes. Frames, calls and the time
// go in; frames and news come out. It knows no clock, no socket and no timer: those are its driver's. After a lost session the
// state of the next one is made from the table, never mended.

import { closed, failure, invalid, ofStatus, type SwitchyardError } from "../error.js";
import type { CheckedSpec } from "../spec.js";
import { type DrainMode, isOver, type Left, type State, type Stats, type Status as ClientStatus } from "../state.js";
import { commandFrame, count, duration, millis, type SessionResponse, type Status, type WireWelcome } from "../wire.js";
import { Addresses } from "./addresses.js";
import { Backoff, type Random } from "./backoff.js";
import { type Amount, amountOf, type NewPublish } from "./entry.js";
import { Losses } from "./losses.js";
import type { News } from "./news.js";
import { Publishes } from "./publishes.js";
import { type Fresh, Refresh } from "./refresh.js";
import { FIXED_IDS, Requests } from "./requests.js";
import { Table } from "./table.js";

/** How long to wait before the next attempt to open a session; and where the hub is short of something. */
const SESSION_WAITS = { shortest: 100, longest: 5000, longestWhenExhausted: 30_000 };
/** A session that was up for this long has worked: the next wait is short again. */
const SESSION_WORKED_AFTER = 10_000;
/** How long opening a session may take, from the first byte to `welcome`. */
export const OPEN_TIMEOUT = 10_000;
/** A session in which nothing comes for two heartbeat intervals and this long is lost. */
const PATIENCE = 5000;
/** A client that looks later than this did not run, as in a machine that slept or a tab in the background. */
const ASLEEP = 1000;
/** How often it is checked whether a session that is to end has anything left to do. It takes a look at every subscription. */
const CHECK_INTERVAL = 20;
/** How long the hub may take to end a session that is half-closed and has no subscriptions. */
const LAST_PATIENCE = 1000;

/** What a client is made of. */
export interface Setup {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** In milliseconds. */
  readonly heartbeat: number;
  readonly addresses: readonly string[];
  readonly hasSource: boolean;
  /** Comes back although an operator has ended its session. */
  readonly returnsWhenTerminated: boolean;
  /** What may wait to be published. */
  readonly most: Amount;
  readonly random: Random;
}

/**
 * Why there is no session, or none any longer: the call failed; the hub ended it in order; nothing came for too long; or this
 * client left, because the hub asked for it.
 */
export type Loss = { readonly failed: SwitchyardError } | "ended" | "silent" | "left";

/** What the driver does next where there is no session: to wait until then, to open a session, or nothing any more. */
export type Plan =
  | { readonly to: "rest"; readonly until: number }
  | { readonly to: "open"; readonly address: string }
  | { readonly to: "stop"; readonly error: SwitchyardError | undefined };

/** What the driver does next where there is a session. */
export interface Turn {
  /** It leaves the session, for this reason. */
  readonly cut: Loss | undefined;
  /** It writes. */
  readonly writes: boolean;
  /** It asks the source for a token for this session. */
  readonly fetch: number | undefined;
  /** It writes nothing any more. */
  readonly halfCloses: boolean;
  /** It comes back at this time at the latest. */
  readonly wakeAt: number;
}

type SessionPhase =
  | { readonly is: "idle" | "opening" | "greeting" }
  | { readonly is: "waiting"; readonly until: number }
  | { readonly is: "up"; readonly since: number }
  | { readonly is: "over"; readonly error: SwitchyardError | undefined };

/** A client that its user drains: it ends then, whatever is left. Since when nothing more is written. */
interface Closing {
  until: number;
  halfClosed: number | undefined;
}

/** One client. */
export class Machine {
  readonly table: Table;
  readonly news: News[] = [];
  status: ClientStatus = { state: "idle", reason: undefined, address: "", sessionId: "", attempt: 0 };
  /** What was left when it was drained. */
  left: Left = { clean: true, events: 0, acknowledgements: 0, unknownPublishes: 0, unsentPublishes: 0 };
  private phase: SessionPhase = { is: "idle" };
  private readonly addresses: Addresses;
  private readonly publishes: Publishes;
  private readonly requests = new Requests();
  private readonly refresh: Refresh;
  private readonly backoff: Backoff;
  /** Counts the attempts to open a session: names each. */
  private session = 0;
  /** `hello` is to be written first. */
  private owesHello = false;
  /** The session whose leases are to be kept. Empty before the first. */
  private previous = "";
  private lastFrame = 0;
  /** The session is to end, as its hub has announced; how long it asks to wait then. */
  private draining: { readonly delay: number | undefined } | undefined;
  private closing: Closing | undefined;
  /** When it is checked next whether a session that is to end has anything left to do. */
  private checkAt = 0;
  /** What the hub said of the session as a whole, just before it ended it. */
  private lastWords: SwitchyardError | undefined;
  private sessions = 0;
  private readonly losses = new Losses();
  private tickets = 0;

  constructor(private readonly setup: Setup) {
    const { random } = setup;
    this.addresses = new Addresses(setup.addresses, random);
    this.table = new Table(random);
    this.publishes = new Publishes(setup.most, setup.hasSource, random);
    this.refresh = new Refresh(setup.hasSource, random);
    this.backoff = new Backoff(SESSION_WAITS.shortest, SESSION_WAITS.longest, random);
  }

  // Where there is no session.

  /** Somebody drives it from now on. Only one may. */
  drive(): void {
    if (this.phase.is === "idle") {
      this.phase = { is: "waiting", until: 0 };
    } else if (this.phase.is !== "over") {
      throw invalid("run", "is called while the client runs");
    }
  }

  /** What the driver does now. */
  plan(now: number): Plan {
    this.tick(now);
    this.closeWithoutSession(now);
    const { phase } = this;
    if (phase.is === "over") {
      return { to: "stop", error: phase.error };
    }
    if (phase.is === "waiting" && phase.until > now) {
      const closing = this.closing?.until ?? Infinity;
      return { to: "rest", until: Math.min(phase.until, closing, this.publishes.due(now) ?? Infinity) };
    }
    this.phase = { is: "opening" };
    this.session += 1;
    const address = this.addresses.current();
    this.status = { ...this.status, attempt: this.status.attempt + 1, address };
    this.enter("connecting", this.status.reason);
    return { to: "open", address };
  }

  /** What the driver does while it connects: it comes back at this time at the latest, or stops when that is over. */
  opening(now: number): number | undefined {
    this.tick(now);
    this.closeWithoutSession(now);
    if (this.phase.is === "over") {
      return undefined;
    }
    return Math.min(this.closing?.until ?? Infinity, this.publishes.due(now) ?? Infinity);
  }

  /**
   * The driver has a connection to the hub, with a token that is good for this long, if that is known. Of the time for opening
   * a session it took so much.
   */
  connected(now: number, life: number | undefined, took: number): void {
    this.phase = { is: "greeting" };
    this.owesHello = true;
    this.lastWords = undefined;
    this.lastFrame = now - took;
    this.refresh.sessionBegins(now, this.session, life);
  }

  /** There is no session, or none any longer. */
  lost(now: number, loss: Loss): void {
    const { phase } = this;
    if (phase.is === "over") {
      return;
    }
    const wasUp = phase.is === "up";
    const hasWorked = wasUp && now - phase.since >= SESSION_WORKED_AFTER;
    if (hasWorked) {
      this.backoff.reset();
    }
    const error = this.reasonOf(loss);
    this.losses.count(error);
    if (wasUp) {
      if (this.table.sessionLost(now, this.news)) {
        this.previous = this.status.sessionId;
      }
      this.publishes.sessionLost(this.news);
    }
    this.requests.clear();
    this.refresh.sessionLost();
    const told = this.draining?.delay ?? error.retryAfterMs;
    this.draining = undefined;
    if (this.closing?.halfClosed !== undefined) {
      this.finish();
      return;
    }
    if (this.isFatal(error)) {
      this.fail(error);
      return;
    }
    this.addresses.next();
    const isExhausted = error.code === "RESOURCE_EXHAUSTED";
    const longest = isExhausted ? SESSION_WAITS.longestWhenExhausted : SESSION_WAITS.longest;
    // What the hub says holds, unless sessions end as soon as they begin.
    const wait = told !== undefined && hasWorked ? told : Math.max(told ?? 0, this.backoff.next(longest));
    this.phase = { is: "waiting", until: now + wait };
    this.enter("waiting", error);
  }

  /** The loss in the words of an error. */
  private reasonOf(loss: Loss): SwitchyardError {
    const own = (reason: string, text: string): SwitchyardError => failure("lost", "UNAVAILABLE", reason, text);
    let error: SwitchyardError;
    if (loss === "silent") {
      error = own("NOTHING_HEARD", `nothing came from the hub for ${duration(this.patience())}`);
    } else if (loss === "left") {
      error = own("DRAINING", "the hub asked to go elsewhere");
    } else if (this.lastWords !== undefined) {
      error = this.lastWords;
    } else {
      error = loss === "ended" ? own("", "the hub ended the session") : loss.failed.ofKind("lost");
    }
    this.lastWords = undefined;
    return error.at(this.status.address);
  }

  /** Whether it would be the same the next time. */
  private isFatal(error: SwitchyardError): boolean {
    if (error.code === "UNAUTHENTICATED") {
      return !this.refresh.hasSource;
    }
    const isTerminated = error.reason === "SESSION_TERMINATED" && !this.setup.returnsWhenTerminated;
    return error.code === "PERMISSION_DENIED" || error.code === "UNIMPLEMENTED" || (isTerminated && this.sessions > 0);
  }

  // Where there is a session.

  /** What the driver does now. */
  turn(now: number): Turn {
    this.tick(now);
    let halfCloses = false;
    let cut: Loss | undefined;
    if (this.closing !== undefined) {
      const step = this.closeInSession(now, this.closing);
      halfCloses = step === "halfCloses";
      cut = step === "isOver" ? "ended" : undefined;
    } else if (this.leavesHub(now)) {
      cut = "left";
    }
    const fetch = this.refresh.fetch(now);
    return { cut, writes: this.hasWrites(now), fetch, halfCloses, wakeAt: this.wakeAt(now) };
  }

  /**
   * Some time has passed, and no frame is there. Whether the session is lost for that. The time in which this client did not
   * run itself does not count: frames may have come meanwhile, and are on their way here.
   */
  isSilent(now: number): boolean {
    const over = now - this.turnsSilent();
    if (over < 0) {
      return false;
    }
    if (over < ASLEEP) {
      return true;
    }
    this.lastFrame = now + PATIENCE - this.patience();
    return false;
  }

  /** When the session is lost if nothing comes until then. */
  turnsSilent(): number {
    return this.lastFrame + this.patience();
  }

  /** How long nothing may come. */
  private patience(): number {
    return this.phase.is === "up" ? 2 * this.setup.heartbeat + PATIENCE : OPEN_TIMEOUT;
  }

  private wakeAt(now: number): number {
    const { closing } = this;
    // Where nothing is written any more, there is nothing left to check.
    const checks = closing === undefined ? this.draining !== undefined : closing.halfClosed === undefined;
    return Math.min(
      this.turnsSilent(),
      checks ? Math.max(this.checkAt, now) : Infinity,
      closing === undefined ? Infinity : overAt(closing),
      this.refresh.due() ?? Infinity,
      this.table.due() ?? Infinity,
      this.publishes.due(now) ?? Infinity,
    );
  }

  private tick(now: number): void {
    this.table.tick(now);
    this.publishes.tick(now, this.news);
  }

  /** A hub that drains is left as soon as nothing is begun. True when it is time. */
  private leavesHub(now: number): boolean {
    if (this.draining === undefined || now < this.checkAt) {
      return false;
    }
    this.checkAt = now + CHECK_INTERVAL;
    const isQuiet = this.table.isQuiet();
    // Publishers do not wait for handlers.
    this.publishes.beQuiet(isQuiet);
    return isQuiet && this.publishes.isQuiet() && !this.table.membersLeave(now, this.news);
  }

  /** Something is to be written. */
  hasWrites(now: number): boolean {
    if (this.phase.is === "up") {
      const isHeard = this.owesHello || this.refresh.hasFresh();
      return isHeard || this.table.hasWrites() || this.publishes.hasWrites(now);
    }
    return this.phase.is === "greeting" && this.owesHello;
  }

  /** The next frame to write. Commands come before publishes: they are few and small. */
  write(now: number): string | undefined {
    if (this.owesHello) {
      this.owesHello = false;
      return commandFrame(FIXED_IDS.hello, { hello: this.hello() });
    }
    if (this.phase.is !== "up") {
      return undefined;
    }
    const token = this.refresh.take();
    if (token !== undefined) {
      return commandFrame(FIXED_IDS.authenticate, { authenticate: { token } });
    }
    const written = this.table.write(now, this.requests);
    if (written !== undefined) {
      return commandFrame(...written);
    }
    return this.publishes.write(now, this.requests, this.news);
  }

  private hello(): object {
    const { name, labels, heartbeat } = this.setup;
    return {
      ...(name !== "" && { clientName: name }),
      ...(Object.keys(labels).length > 0 && { labels }),
      heartbeatInterval: duration(heartbeat),
      ...(this.previous !== "" && { previousSessionId: this.previous }),
    };
  }

  /** The source has given a token for a session, or has failed. False when that cannot be used. */
  fetched(now: number, session: number, token: Fresh | undefined): boolean {
    return this.refresh.fetched(now, session, token);
  }

  // What comes.

  /** A frame came, at this time of day in milliseconds. */
  frame(now: number, wall: number, response: SessionResponse): void {
    if (this.phase.is === "over") {
      return;
    }
    this.lastFrame = now;
    const request = count(response.requestId);
    const { table, news } = this;
    if (response.events !== undefined) {
      table.events(now, response.events, news);
      return;
    }
    if (response.error !== undefined) {
      this.refused(now, request, response.error);
      return;
    }
    if (request !== 0) {
      this.requests.close(request);
    }
    if (response.published !== undefined) {
      this.publishes.answered(now, request, response.published.results ?? [], news);
    } else if (response.acknowledged !== undefined) {
      table.acknowledged(now, request, response.acknowledged, news);
    } else if (response.progress !== undefined) {
      table.progress(now, response.progress, news);
    } else if (response.subscribed !== undefined) {
      table.subscribed(now, response.subscribed, news);
    } else if (response.gap !== undefined) {
      table.gap(now, response.gap, news);
    } else if (response.ended !== undefined) {
      table.ended(now, response.ended, this.status.address, this.refresh.hasSource, news);
    } else if (response.welcome !== undefined) {
      this.welcome(now, wall, response.welcome);
    } else if (response.credentialExpiring !== undefined) {
      this.refresh.expiring(now);
    } else if (response.draining !== undefined) {
      this.drains(now, millis(response.draining.reconnectDelay), response.draining.alternatives ?? []);
    }
  }

  /** The session is open: everything in the table is to be opened, and what was not answered to be written again. */
  private welcome(now: number, wall: number, welcome: WireWelcome): void {
    if (this.phase.is !== "greeting") {
      return;
    }
    this.phase = { is: "up", since: now };
    this.sessions += 1;
    this.addresses.learn(welcome.alternatives ?? []);
    const expiry = Date.parse(welcome.credentialExpiry ?? "");
    if (Number.isFinite(expiry)) {
      this.refresh.hubSays(now, Math.max(expiry - wall, 0));
    }
    this.status = { ...this.status, sessionId: welcome.sessionId ?? "", attempt: 0 };
    this.publishes.sessionBegins(welcome.limits);
    this.table.sessionBegins(now);
    this.enter("up", undefined);
  }

  /** A command was refused, or the session as a whole. */
  private refused(now: number, request: number, status: Status): void {
    const error = ofStatus("refused", status).at(this.status.address);
    const asked = this.requests.close(request);
    switch (asked?.to) {
      case "subscribe":
        this.table.subscribeRefused(now, asked.id, this.status.address, error, this.news);
        break;
      case "acknowledge":
        this.table.acknowledgeRefused(now, asked.id, request, error, this.news);
        break;
      case "publish":
        this.publishes.refused(now, request, error, this.news);
        break;
      default:
        if (request === FIXED_IDS.authenticate) {
          this.refresh.refused(now);
        } else if (request === 0) {
          this.lastWords = error.ofKind("lost");
        }
      // Of a subscription that has just ended, most likely: its end is a frame of its own.
    }
  }

  /** The session is to end. It works until then, and this client leaves as soon as nothing is begun. */
  private drains(now: number, delay: number | undefined, alternatives: readonly string[]): void {
    this.addresses.learn(alternatives);
    this.draining = { delay };
    this.checkAt = now + CHECK_INTERVAL;
    this.table.beQuiet();
    this.enter("draining", undefined);
  }

  // The end.

  /** Takes nothing new, finishes what was begun, and ends; at the latest after `timeout` milliseconds. */
  drain(now: number, mode: DrainMode, timeout: number): void {
    if (this.phase.is === "over") {
      return;
    }
    const until = now + timeout;
    if (this.closing === undefined) {
      this.closing = { until, halfClosed: undefined };
    } else {
      this.closing.until = Math.min(this.closing.until, until);
    }
    this.table.hush(now, this.news);
    if (mode === "release") {
      this.table.release(now);
    }
    this.checkAt = now;
    this.enter("closing", undefined);
    if (this.phase.is === "idle") {
      // Nobody drives it, so nothing can be finished.
      this.finish();
    }
  }

  /** Ends when nothing is left, or it is time. */
  private closeWithoutSession(now: number): void {
    if (this.closing === undefined || this.phase.is === "over") {
      return;
    }
    const areLeft = this.table.leave(now, this.news);
    if (now >= this.closing.until || (!areLeft && this.publishes.isEmpty())) {
      this.finish();
    }
  }

  /** The same where there is a session, which is to end in order too. */
  private closeInSession(now: number, closing: Closing): "halfCloses" | "isOver" | undefined {
    if (now >= overAt(closing)) {
      this.finish();
      return "isOver";
    }
    if (now < this.checkAt || closing.halfClosed !== undefined) {
      return undefined;
    }
    this.checkAt = now + CHECK_INTERVAL;
    if (this.table.leave(now, this.news) || !this.publishes.isEmpty()) {
      return undefined;
    }
    closing.halfClosed = now;
    return "halfCloses";
  }

  /** Ends, whatever is left. */
  private finish(): void {
    const { events, acknowledgements } = this.table.left();
    const { unknown, unsent } = this.publishes.left();
    const clean = events + acknowledgements + unknown + unsent === 0;
    this.left = { clean, events, acknowledgements, unknownPublishes: unknown, unsentPublishes: unsent };
    this.publishes.giveUp(closed(), this.news);
    this.table.fail(undefined, this.news);
    this.phase = { is: "over", error: undefined };
    this.enter("closed", undefined);
  }

  /** Ends for good: trying again would not help. */
  private fail(error: SwitchyardError): void {
    this.publishes.giveUp(error, this.news);
    this.table.fail(error, this.news);
    this.phase = { is: "over", error };
    this.enter("failed", error);
  }

  // What handles do, besides what they do with the table.

  /** Fails if nothing new is taken. */
  checkOpen(): void {
    if (this.phase.is === "over" && this.phase.error !== undefined) {
      throw this.phase.error.ofKind("closed");
    }
    if (this.phase.is === "over" || this.closing !== undefined) {
      throw closed();
    }
  }

  subscribe(spec: CheckedSpec, token: string | undefined): number {
    this.checkOpen();
    return this.table.add(spec, token);
  }

  /** Takes a call into the queue, and gives its ticket; `undefined` when there is no room now. */
  publish(call: NewPublish): number | undefined {
    this.checkOpen();
    const amount = amountOf(call.events);
    if (!this.publishes.fits(amount)) {
      throw invalid("events", `are ${amount.events} of ${amount.bytes} bytes, more than the queue ever holds`);
    }
    return this.publishes.hasRoom(amount) ? this.publishes.add(call) : undefined;
  }

  /** A name for an answer that somebody waits for. */
  ticket(): number {
    this.tickets += 1;
    return this.tickets;
  }

  stats(now: number): Stats {
    const totals = this.table.totals();
    return {
      sessions: this.sessions,
      losses: this.losses.all(),
      sinceLastFrameMs: this.phase.is === "up" ? now - this.lastFrame : undefined,
      subscriptions: totals.subscriptions,
      eventsInHand: totals.events,
      bytesInHand: totals.bytes,
      unansweredAcknowledgements: totals.unanswered,
      queuedPublishes: this.publishes.held().events,
      unansweredPublishes: this.publishes.left().unknown,
      fullWindows: totals.fullWindows,
    };
  }

  private enter(state: State, reason: SwitchyardError | undefined): void {
    // Whoever closes a client wants to see that, whatever its session does meanwhile.
    const shown = this.closing !== undefined && !isOver(state) ? "closing" : state;
    this.status = { ...this.status, state: shown, reason };
    this.news.push({ of: "state", status: this.status });
  }
}

/** When a client that closes is over, whatever is left. */
function overAt({ until, halfClosed }: Closing): number {
  return halfClosed === undefined ? until : Math.min(until, halfClosed + LAST_PATIENCE);
}

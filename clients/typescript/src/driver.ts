// What runs a client: it owns the connection and the timer, and does what the machine says.
//
// It decides nothing: not when to connect, not what to write, not when to stop.

import { type Core, MOST_TIMER } from "./core.js";
import { SwitchyardError, failure } from "./error.js";
import type { Link, Links } from "./link.js";
import type { Loss } from "./machine/machine.js";
import type { SessionResponse } from "./wire.js";

/** How long to wait before it is looked again whether a connection takes more. */
const DRAIN_POLL = 10;

/** The driver of one client. */
export class Driver {
  private readonly finished: (error: SwitchyardError | undefined) => void;
  /** Resolves when the client is over; with what it failed with, if it did. */
  readonly over: Promise<SwitchyardError | undefined>;
  private link: Link | undefined;
  private opening: AbortController | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private timerAt = Infinity;
  private willLook = false;
  /** The session may be lost, as nothing comes. */
  private doubts = false;
  private isOver = false;

  constructor(
    private readonly core: Core,
    private readonly links: Links,
  ) {
    let finished: (error: SwitchyardError | undefined) => void = () => undefined;
    this.over = new Promise((resolve) => {
      finished = resolve;
    });
    this.finished = finished;
    core.with((machine) => machine.drive());
    core.ring = () => this.lookSoon();
    this.lookSoon();
  }

  /** However much happens at once, one look is enough. */
  private lookSoon(): void {
    if (!this.willLook && !this.isOver) {
      this.willLook = true;
      queueMicrotask(() => {
        this.willLook = false;
        this.look();
      });
    }
  }

  private look(): void {
    if (this.isOver) {
      return;
    }
    if (this.link !== undefined) {
      this.serve(this.link);
    } else if (this.opening !== undefined) {
      this.watch(this.opening);
    } else {
      this.follow();
    }
  }

  /** There is no session. */
  private follow(): void {
    const plan = this.core.with((machine, now) => machine.plan(now));
    if (plan.to === "rest") {
      this.wakeAt(plan.until);
    } else if (plan.to === "open") {
      this.open(plan.address);
    } else {
      this.isOver = true;
      clearTimeout(this.timer);
      this.core.ring = () => undefined;
      this.finished(plan.error);
    }
  }

  private open(address: string): void {
    const opening = new AbortController();
    this.opening = opening;
    const opened = this.links.open(address, opening.signal);
    opened.then(
      ({ link, life, took }) => {
        if (this.opening !== opening) {
          link.abort();
          return;
        }
        this.opening = undefined;
        this.link = link;
        this.core.with((machine, now) => machine.connected(now, life, took));
        link.start({ frame: (response) => this.frame(link, response), lost: (loss) => this.lost(link, loss) });
        this.lookSoon();
      },
      (error: unknown) => {
        if (this.opening === opening) {
          this.opening = undefined;
          this.core.with((machine, now) => machine.lost(now, { failed: asError(error) }));
          this.lookSoon();
        }
      },
    );
    this.watch(opening);
  }

  /** A session is being opened. */
  private watch(opening: AbortController): void {
    const due = this.core.with((machine, now) => machine.opening(now));
    if (due === undefined) {
      this.opening = undefined;
      opening.abort();
      this.follow();
    } else {
      this.wakeAt(due);
    }
  }

  /** There is a session. */
  private serve(link: Link): void {
    const turn = this.core.with((machine, now) => machine.turn(now));
    if (turn.cut !== undefined) {
      this.lost(link, turn.cut);
      return;
    }
    if (turn.fetch !== undefined) {
      this.fetch(turn.fetch);
    }
    if (turn.writes) {
      this.core.with((machine, now) => {
        while (!link.isFull()) {
          const frame = machine.write(now);
          if (frame === undefined) {
            return;
          }
          link.write(frame);
        }
      });
    }
    if (turn.halfCloses) {
      link.halfClose();
    }
    const isHeldUp = link.isFull();
    this.wakeAt(isHeldUp ? Math.min(turn.wakeAt, this.core.now() + DRAIN_POLL) : turn.wakeAt);
  }

  private frame(link: Link, response: SessionResponse): void {
    if (this.link === link) {
      this.core.with((machine, now) => machine.frame(now, Date.now(), response));
      this.lookSoon();
    }
  }

  private lost(link: Link, loss: Loss): void {
    if (this.link === link) {
      this.link = undefined;
      link.abort();
      this.core.with((machine, now) => machine.lost(now, loss));
      this.lookSoon();
    }
  }

  /** Asks the source for a token for this session. */
  private fetch(session: number): void {
    const fetched = this.links.fetchToken().catch((error: unknown) => {
      this.core.warn(`no fresh token: ${asError(error).message}`);
      return undefined;
    });
    void fetched.then((token) => {
      if (!this.core.with((machine, now) => machine.fetched(now, session, token))) {
        this.core.warn("the source gave no token that a hub takes; it is asked again");
      }
      this.lookSoon();
    });
  }

  // Time.

  /** Looks again at this time at the latest. A timer that rings too early does no harm, and most are never needed. */
  private wakeAt(at: number): void {
    if (at >= this.timerAt || at === Infinity) {
      return;
    }
    clearTimeout(this.timer);
    this.timerAt = at;
    const wait = Math.min(Math.max(Math.ceil(at - this.core.now()), 0), MOST_TIMER);
    this.timer = setTimeout(() => this.rang(), wait);
  }

  private rang(): void {
    this.timerAt = Infinity;
    const { link } = this;
    if (link !== undefined && !this.doubts && this.core.machine.turnsSilent() <= this.core.now()) {
      this.doubts = true;
      // Nothing is silent of which a frame is there: what has arrived comes first.
      setTimeout(() => this.judge(link), 0);
    }
    this.look();
  }

  /** Nothing has come for as long as may be. */
  private judge(link: Link): void {
    this.doubts = false;
    if (this.link === link && this.core.with((machine, now) => machine.isSilent(now))) {
      this.lost(link, "silent");
    }
    this.lookSoon();
  }
}

function asError(error: unknown): SwitchyardError {
  return error instanceof SwitchyardError ? error : failure("lost", "UNAVAILABLE", "NOT_CONNECTED", String(error));
}

// What the handles of one client and its driver share: the state machine, the clock that it is moved by, and those who wait for
// what comes of that.
//
// Nothing of the user runs while the machine is moved.

import { closed, type SwitchyardError } from "./error.js";
import { deadlinePassed, type NewPublish } from "./machine/entry.js";
import type { Machine } from "./machine/machine.js";
import type { Outcome } from "./machine/news.js";
import type { Hold } from "./machine/table.js";
import type { Verdict } from "./machine/verdict.js";
import type { CheckedSpec } from "./spec.js";
import { isOver, type Status } from "./state.js";

/** Where a client says what happens to it: `console`, or anything like it. */
export interface Logger {
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
}

/** A call that waits for room in the queue. */
interface Waiting {
  readonly call: NewPublish;
  readonly resolve: (answer: Promise<Outcome[]>) => void;
  readonly reject: (error: SwitchyardError) => void;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** The longest that a timer can wait, in milliseconds: what is further away is looked at again. */
export const MOST_TIMER = 2 ** 31 - 1;

export class Core {
  /** The driver is to look at the machine. */
  ring: () => void = () => undefined;
  private readonly began = performance.now();
  private readonly bells = new Map<number, Set<() => void>>();
  private readonly publishers = new Map<number, (results: Outcome[]) => void>();
  private readonly settlers = new Map<number, (error: SwitchyardError | undefined) => void>();
  private readonly listeners = new Set<(status: Status) => void>();
  /** Calls that wait for room, in order. */
  private line: Waiting[] = [];
  /** States that nobody was told of yet, in order. */
  private readonly untold: Status[] = [];
  private isTelling = false;

  constructor(
    readonly machine: Machine,
    private readonly logger: Logger | undefined,
  ) {}

  /** The time of the machine: milliseconds since it was made. */
  now(): number {
    return performance.now() - this.began;
  }

  /** Moves the machine, and tells everybody what has come of it. */
  with<T>(act: (machine: Machine, now: number) => T): T {
    try {
      return act(this.machine, this.now());
    } finally {
      this.spread();
    }
  }

  /** The same for handles: the driver looks at it. */
  call<T>(act: (machine: Machine, now: number) => T): T {
    const done = this.with(act);
    this.ring();
    return done;
  }

  private spread(): void {
    const { news } = this.machine;
    if (news.length === 0) {
      return;
    }
    let hasRoom = false;
    for (const one of news.splice(0)) {
      switch (one.of) {
        case "subscription":
          this.ringBell(one.id);
          break;
        case "published":
          this.publishers.get(one.ticket)?.(one.results);
          this.publishers.delete(one.ticket);
          break;
        case "settled":
          this.settlers.get(one.ticket)?.(one.error);
          this.settlers.delete(one.ticket);
          break;
        case "room":
          hasRoom = true;
          break;
        case "state":
          hasRoom ||= isOver(one.status.state);
          this.untold.push(one.status);
      }
    }
    if (hasRoom) {
      this.admit();
    }
    this.tellStates();
  }

  /** Tells of all states, in their order, even if somebody who hears of one moves the machine. */
  private tellStates(): void {
    if (this.isTelling) {
      return;
    }
    this.isTelling = true;
    for (let status = this.untold.shift(); status !== undefined; status = this.untold.shift()) {
      this.log(status);
      for (const hears of [...this.listeners]) {
        try {
          hears(status);
        } catch (error) {
          this.warn(`one that hears of states has failed: ${String(error)}`);
        }
      }
    }
    this.isTelling = false;
  }

  private log({ state, address, sessionId, attempt, reason }: Status): void {
    const why = reason === undefined ? "" : `: ${reason.message}`;
    const text = `switchyard: ${state} ${address} session=${sessionId} attempt=${attempt}${why}`;
    if (state === "failed") {
      this.logger?.error(text);
    } else if (state === "waiting") {
      this.logger?.warn(text);
    } else {
      this.logger?.info(text);
    }
  }

  warn(text: string): void {
    this.logger?.warn(`switchyard: ${text}`);
  }

  // Those who wait.

  /** Calls this on every change of state, until what it gives is called. */
  onState(hears: (status: Status) => void): () => void {
    this.listeners.add(hears);
    return () => this.listeners.delete(hears);
  }

  private ringBell(id: number): void {
    const waiting = this.bells.get(id);
    if (waiting !== undefined) {
      this.bells.delete(id);
      for (const wake of waiting) {
        wake();
      }
    }
  }

  /** Until something has changed for a subscription. */
  changed(id: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.bells.get(id) ?? new Set();
      waiting.add(resolve);
      this.bells.set(id, waiting);
    });
  }

  // What handles begin.

  subscribe(spec: CheckedSpec, token: string | undefined): number {
    return this.call((machine) => machine.subscribe(spec, token));
  }

  /** Takes a call into the queue. `undefined` where there is no room. Fails where it can never be taken. */
  publish(call: NewPublish): Promise<Outcome[]> | undefined {
    if (this.line.length > 0) {
      // Nobody is passed over because others need less room.
      return undefined;
    }
    return this.enqueue(call);
  }

  private enqueue(call: NewPublish): Promise<Outcome[]> | undefined {
    const ticket = this.call((machine) => machine.publish(call));
    if (ticket === undefined) {
      return undefined;
    }
    return new Promise((resolve) => this.publishers.set(ticket, resolve));
  }

  /** Waits in line until there is room for a call, or its deadline has passed. */
  publishSoon(call: NewPublish): Promise<{ readonly answer: Promise<Outcome[]> }> {
    const answer = this.publish(call);
    if (answer !== undefined) {
      return Promise.resolve({ answer });
    }
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { call, resolve: (taken) => resolve({ answer: taken }), reject, timer: undefined };
      this.line.push(waiting);
      this.watch(waiting);
    });
  }

  private watch(waiting: Waiting): void {
    const left = waiting.call.deadline - this.now();
    if (left <= 0) {
      this.line = this.line.filter((other) => other !== waiting);
      const text = "the queue of publishes was full until the deadline: the event was not published";
      waiting.reject(deadlinePassed("refused", text));
    } else {
      waiting.timer = setTimeout(() => this.watch(waiting), Math.min(left, MOST_TIMER));
    }
  }

  /** Takes those who wait into the queue, as far as there is room. */
  private admit(): void {
    for (let first = this.line[0]; first !== undefined; first = this.line[0]) {
      try {
        const answer = this.enqueue(first.call);
        if (answer === undefined) {
          return;
        }
        first.resolve(answer);
      } catch (error) {
        first.reject(error as SwitchyardError);
      }
      clearTimeout(first.timer);
      this.line.shift();
    }
  }

  /** An event is settled. */
  settle(hold: Hold, verdict: Verdict): void {
    this.call((machine, now) => machine.table.settleEvent(now, hold, verdict, undefined));
  }

  /** The same for somebody who waits until that is stored. `undefined` when the event is no longer in hand. */
  settleAndTell(hold: Hold, verdict: Verdict): Promise<SwitchyardError | undefined> | undefined {
    return this.call((machine, now) => {
      const ticket = machine.ticket();
      if (!machine.table.settleEvent(now, hold, verdict, ticket)) {
        return undefined;
      }
      return new Promise((resolve) => this.settlers.set(ticket, resolve));
    });
  }

  /** Until the client is over: with what it failed with, if it did. */
  over(): Promise<SwitchyardError | undefined> {
    const { status } = this.machine;
    if (isOver(status.state)) {
      return Promise.resolve(status.state === "failed" ? (status.reason ?? closed()) : undefined);
    }
    return new Promise((resolve) => {
      const stop = this.onState(({ state, reason }) => {
        if (isOver(state)) {
          stop();
          resolve(state === "failed" ? (reason ?? closed()) : undefined);
        }
      });
    });
  }
}

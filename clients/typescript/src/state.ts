// What a user can know of a client at any time: its state, what it has counted, and what became of what was published. Pure.

import type { SwitchyardError } from "./error.js";

/**
 * What a client is doing.
 *
 * `idle -> connecting -> up -> draining -> waiting -> connecting`, and so on for ever. `up` goes to `waiting` when the session
 * is lost. `closing -> closed` is the caller's doing, and `failed` is for errors that trying again cannot mend.
 *
 * - `idle`: nobody runs it yet.
 * - `connecting`: it opens a session.
 * - `up`: it has a session.
 * - `draining`: it has a session whose hub asked it to go elsewhere. Everything still works.
 * - `waiting`: it has no session, and waits before it tries again.
 * - `closing`: it finishes what was begun, because its user drains it.
 * - `closed`: it is over, as its user wanted.
 * - `failed`: it is over, and the reason says why: trying again would not help.
 */
export type State = "idle" | "connecting" | "up" | "draining" | "waiting" | "closing" | "closed" | "failed";

/** The state of a client, and how it came to be in it. */
export interface Status {
  readonly state: State;
  /** Why it is in this state, if there is more to say: what ended the last session, or failed the client. */
  readonly reason: SwitchyardError | undefined;
  /** The hub it is connected to, connects to, or was connected to. Empty before the first attempt. */
  readonly address: string;
  /** The session it has, or had last, as the hub names it in its logs. Empty before the first. */
  readonly sessionId: string;
  /** How many attempts to open a session were made since one was open. */
  readonly attempt: number;
}

/** True when nothing comes any more. */
export function isOver(state: State): boolean {
  return state === "closed" || state === "failed";
}

/** What a client has counted, and what it has in hand now. */
export interface Stats {
  /** How many sessions were opened. */
  readonly sessions: number;
  /** How many attempts failed or sessions ended, by reason: the hub's, or the code of gRPC. */
  readonly losses: Readonly<Record<string, number>>;
  /** How long ago the last frame of the current session came, in milliseconds; `undefined` without a session. */
  readonly sinceLastFrameMs: number | undefined;
  readonly subscriptions: number;
  /** Events that this client holds: those that were not taken, and those of groups that are not settled. */
  readonly eventsInHand: number;
  readonly bytesInHand: number;
  /** Acknowledgements that the hub has not answered. */
  readonly unansweredAcknowledgements: number;
  /** Events that wait to be published, or for the answer. */
  readonly queuedPublishes: number;
  /** Events of those that were written and are not answered. */
  readonly unansweredPublishes: number;
  /** How often a subscription had to stop the hub because its window was full. */
  readonly fullWindows: number;
}

/**
 * How a client is drained: `finish` waits for what the caller has; `release` gives back what the caller has of groups at
 * once, without a failed attempt, and what is said of it later has no effect. Acknowledgements and publishes are flushed
 * either way.
 */
export type DrainMode = "finish" | "release";

/** What was left when a client was drained. */
export interface Left {
  /** True when nothing was left. */
  readonly clean: boolean;
  /** Batches that the caller had, and events of groups that it had not settled. */
  readonly events: number;
  /** Acknowledgements that the hub has not answered. */
  readonly acknowledgements: number;
  /** Events that were sent to be published, and not answered: they may be published. */
  readonly unknownPublishes: number;
  /** Events that were never sent: they are not published. */
  readonly unsentPublishes: number;
}

/** An event was published. */
export type Published =
  | {
      /** A stream has it. */
      readonly kind: "stored";
      readonly stream: string;
      readonly sequence: bigint;
      readonly epoch: bigint;
      /** The stream had it already: from an earlier try, or from another event with the same topic, source and id. */
      readonly duplicate: boolean;
      /** What the stream promises, such as `DURABILITY_SYNC`. */
      readonly durability: string;
      /** How many live subscriptions of that hub got it too; a group counts as one. */
      readonly matched: number;
    }
  | {
      /** No stream holds its topic. It went to live subscriptions. */
      readonly kind: "live";
      /** How many got it on that hub; a group counts as one. */
      readonly matched: number;
    };

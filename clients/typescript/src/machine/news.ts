// What the machine tells the handles. Pure.
//
// The machine counts time in milliseconds since its client was made.

import type { SwitchyardError } from "../error.js";
import type { Published, Status } from "../state.js";

/** What became of one event that was published. */
export type Outcome = Published | SwitchyardError;

/** Something that somebody may wait for. */
export type News =
  /** Something has changed for whoever reads this subscription, or waits for it. */
  | { readonly of: "subscription"; readonly id: number }
  /** What became of the events of a publish. */
  | { readonly of: "published"; readonly ticket: number; readonly results: Outcome[] }
  /** What became of an acknowledgement. */
  | { readonly of: "settled"; readonly ticket: number; readonly error: SwitchyardError | undefined }
  /** There is room in the queue of publishes. */
  | { readonly of: "room" }
  /** The client is in another state. */
  | { readonly of: "state"; readonly status: Status };

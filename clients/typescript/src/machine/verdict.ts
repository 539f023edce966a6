// What the application says of an event, and the command that it becomes. Pure.

import { duration, utf8Length, type WireAcknowledge } from "../wire.js";

/** The longest reason that a hub takes, in bytes. */
export const MAX_REASON_BYTES = 1024;

/** What the application says of an event. */
export type Verdict =
  | { readonly is: "ack" }
  | { readonly is: "nack"; readonly delay: number | undefined; readonly reason: string }
  | { readonly is: "reject"; readonly reason: string };

export const ACK: Verdict = { is: "ack" };

/** The event is not to come again. */
export function isFinal(verdict: Verdict): boolean {
  return verdict.is !== "nack";
}

/** Both become one command. */
export function isAlike(one: Verdict, other: Verdict): boolean {
  if (one.is !== other.is || one.is === "ack" || other.is === "ack") {
    return one.is === other.is;
  }
  const delays = one.is === "nack" && other.is === "nack" ? one.delay === other.delay : true;
  return delays && one.reason === other.reason;
}

/** The command, without its sequences. */
export function acknowledgement(verdict: Verdict): WireAcknowledge {
  if (verdict.is === "ack") {
    return { outcome: "ACK_OUTCOME_ACK" };
  }
  const told: WireAcknowledge = {
    outcome: verdict.is === "nack" ? "ACK_OUTCOME_NACK" : "ACK_OUTCOME_REJECT",
    reason: cut(verdict.reason),
  };
  if (verdict.is === "nack" && verdict.delay !== undefined) {
    told.delay = duration(verdict.delay);
  }
  return told;
}

/** Cut to what a hub takes, between characters. */
function cut(reason: string): string {
  if (utf8Length(reason) <= MAX_REASON_BYTES) {
    return reason;
  }
  let [kept, bytes] = ["", 0];
  for (const character of reason) {
    bytes += utf8Length(character);
    if (bytes > MAX_REASON_BYTES) {
      break;
    }
    kept += character;
  }
  return kept;
}

// Answers of a hub over HTTP that say why something is refused.

import { failure, ofStatus, type SwitchyardError } from "./error.js";
import type { Status } from "./wire.js";

/** An answer that is not what was asked for. Only the hub says what is for ever: anybody in between may answer something. */
export function errorOfAnswer(httpStatus: number, body: string): SwitchyardError {
  const status = statusOfAnswer(body);
  return status === undefined ? notConnected(`the answer has the status ${httpStatus}`) : ofStatus("lost", status);
}

/** What the hub says in the body of an answer; `undefined` if it is of somebody else. */
export function statusOfAnswer(body: string): Status | undefined {
  try {
    const status = JSON.parse(body) as Status | null;
    return typeof status?.code === "number" && status.code > 0 ? status : undefined;
  } catch {
    return undefined;
  }
}

export function notConnected(why: string): SwitchyardError {
  return failure("lost", "UNAVAILABLE", "NOT_CONNECTED", why);
}

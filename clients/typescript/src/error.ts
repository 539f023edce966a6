// The one error of this client: what kind of failure it is, and what the hub said of it.
//
// Owns how a status becomes an error, and how an error is worded. Nothing else reads the details of a status.

import { millis, type Status } from "./wire.js";

/**
 * What kind of failure it is. Whether something was done is told apart here and nowhere else.
 *
 * - `refused`: it was not done; the hub refused it, or it was never sent.
 * - `unknown`: it was sent and not answered; whether it was done is not known.
 * - `leaseLost`: the hub gave the event to somebody else before it was acknowledged, or will.
 * - `ended`: a subscription ended and does not come back by itself.
 * - `lost`: the session ended, or could not be opened. Only as the reason of a state: the client comes back.
 * - `closed`: the client is closing or closed, or has failed for good.
 * - `invalid`: a setting or an argument that can never work.
 * - `source`: a store of positions, or a source of tokens, failed.
 */
export type ErrorKind = "refused" | "unknown" | "leaseLost" | "ended" | "lost" | "closed" | "invalid" | "source";

/** The codes of gRPC, by their numbers. */
const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** A code of gRPC. */
export type Code = (typeof CODES)[number];

interface Facts {
  readonly kind: ErrorKind;
  readonly code: Code;
  readonly reason: string;
  readonly text: string;
  readonly field?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  /** What it concerns, such as a subscription and the address of the hub. */
  readonly place?: string | undefined;
}

/** What went wrong. One failure may concern many who wait: they may get the same error. */
export class SwitchyardError extends Error {
  override readonly name = "SwitchyardError";
  /** What kind of failure it is. */
  readonly kind: ErrorKind;
  /** The code of gRPC. */
  readonly code: Code;
  /**
   * The reason as a program can act on it, such as `STREAM_NOT_FOUND`: one of the hub's (docs/errors.md), or one of this
   * client: `CLIENT_CLOSED`, `DEADLINE_PASSED`, `INVALID_ARGUMENT`, `NO_ANSWER`, `NO_STREAM`, `LEASE_EXPIRED`,
   * `NOTHING_HEARD`, `NOT_CONNECTED`, `NEEDS_WEBSOCKET`, `QUEUE_FULL`, `TOKEN_SOURCE`, `POSITION_STORE`. Empty when the hub,
   * or something between, gave none.
   */
  readonly reason: string;
  /** What happened, in words for people. `message` has it too, with what it concerns. */
  readonly text: string;
  /** The path of the field that is wrong, if one is. */
  readonly field: string | undefined;
  /** How long the hub asks to wait before the next try, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** @internal */
  readonly facts: Facts;

  /** @internal */
  constructor(facts: Facts) {
    super(worded(facts));
    this.facts = facts;
    this.kind = facts.kind;
    this.code = facts.code;
    this.reason = facts.reason;
    this.text = facts.text;
    this.field = facts.field;
    this.retryAfterMs = facts.retryAfterMs;
  }

  /** True when the same can succeed later without a change. */
  get retryable(): boolean {
    return this.retryAfterMs !== undefined || this.code === "UNAVAILABLE";
  }

  /** The same, of another kind. @internal */
  ofKind(kind: ErrorKind): SwitchyardError {
    return kind === this.kind ? this : new SwitchyardError({ ...this.facts, kind });
  }

  /** The same, with what it concerns, unless that is known. @internal */
  at(place: string): SwitchyardError {
    return this.facts.place === undefined ? new SwitchyardError({ ...this.facts, place }) : this;
  }
}

function worded({ code, reason, text, field, place }: Facts): string {
  const where = place === undefined || place === "" ? "" : `${place}: `;
  const why = reason === "" ? "" : ` ${reason}`;
  const which = field === undefined || text.startsWith(field) ? "" : ` (field ${field})`;
  return `${where}${code}${why}: ${text}${which}`;
}

/** One that was found here, not by a hub. */
export function failure(kind: ErrorKind, code: Code, reason: string, text: string): SwitchyardError {
  return new SwitchyardError({ kind, code, reason, text });
}

/** A setting or an argument that can never work. */
export function invalid(field: string, problem: string): SwitchyardError {
  const text = `${field} ${problem}`;
  return new SwitchyardError({ kind: "invalid", code: "INVALID_ARGUMENT", reason: "INVALID_ARGUMENT", text, field });
}

/** What is begun with a client that takes nothing any more. */
export function closed(): SwitchyardError {
  return failure("closed", "CANCELLED", "CLIENT_CLOSED", "the client is closing or closed");
}

/** The failure that a frame or a response reports. */
export function ofStatus(kind: ErrorKind, status: Status): SwitchyardError {
  let reason = "";
  let field: string | undefined;
  let retryAfterMs: number | undefined;
  for (const detail of status.details ?? []) {
    const type = detail["@type"]?.split("/").at(-1);
    if (type === "google.rpc.ErrorInfo") {
      reason ||= detail.reason ?? "";
    } else if (type === "google.rpc.RetryInfo") {
      retryAfterMs ??= millis(detail.retryDelay) ?? 0;
    } else if (type === "google.rpc.BadRequest") {
      field ??= detail.fieldViolations?.[0]?.field;
    }
  }
  const code = CODES[status.code ?? 0] ?? "UNKNOWN";
  return new SwitchyardError({ kind, code, reason, text: status.message ?? "", field, retryAfterMs });
}

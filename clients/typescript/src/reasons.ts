// The reasons of the hub by their numbers, for close codes. Pure. A test compares them with the contract.

import type { Code } from "./error.js";

/** `switchyard.v1.EndReason`, without the prefix. */
export const REASONS: Readonly<Record<number, string>> = {
  1: "CLIENT_UNSUBSCRIBED",
  2: "LIMIT_REACHED",
  3: "CREDIT_EXHAUSTED",
  10: "INVALID_TOPIC",
  11: "INVALID_FILTER",
  12: "INVALID_EXPRESSION",
  13: "EVENT_TOO_LARGE",
  14: "MALFORMED_TOKEN",
  15: "MALFORMED_COMMAND",
  20: "SUBSCRIPTION_ID_IN_USE",
  21: "STREAM_EXISTS",
  22: "GROUP_EXISTS",
  30: "STREAM_NOT_FOUND",
  31: "GROUP_NOT_FOUND",
  32: "SUBSCRIPTION_NOT_FOUND",
  33: "SESSION_NOT_FOUND",
  34: "EVENT_NOT_FOUND",
  40: "CREDENTIAL_MISSING",
  41: "CREDENTIAL_INVALID",
  42: "CREDENTIAL_EXPIRED",
  50: "TOPIC_DENIED",
  51: "PERMISSION_REVOKED",
  52: "ACTION_DENIED",
  60: "RESUME_POINT_LOST",
  61: "EPOCH_CHANGED",
  70: "SLOW_CONSUMER",
  71: "SESSION_STALLED",
  72: "QUOTA_EXCEEDED",
  73: "STREAM_FULL",
  74: "TOO_MANY_SUBSCRIPTIONS",
  75: "TOO_MANY_SESSIONS",
  80: "SEQUENCE_MISMATCH",
  81: "SESSION_TERMINATED",
  90: "FILTER_OVERLAP",
  91: "CONFIG_MISMATCH",
  92: "LEASE_EXPIRED",
  100: "DRAINING",
  101: "ENGINE_UNAVAILABLE",
  102: "ENGINE_RECOVERING",
  110: "STORE_CORRUPT",
  120: "INTERNAL",
};

/** Every ten numbers are of one code. */
const CODES_OF_TENS: readonly Code[] = [
  "OK",
  "INVALID_ARGUMENT",
  "ALREADY_EXISTS",
  "NOT_FOUND",
  "UNAUTHENTICATED",
  "PERMISSION_DENIED",
  "OUT_OF_RANGE",
  "RESOURCE_EXHAUSTED",
  "ABORTED",
  "FAILED_PRECONDITION",
  "UNAVAILABLE",
  "DATA_LOSS",
  "INTERNAL",
];

/** The code that errors with this reason have. */
export function codeOfReason(number: number): Code {
  return CODES_OF_TENS[Math.floor(number / 10)] ?? "UNKNOWN";
}

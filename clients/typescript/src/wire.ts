// The frames of a session as their canonical JSON has them, and the few forms of proto3 JSON that are no values of their own.
// Pure.
//
// Whatever is at its default may be absent. 64-bit integers are texts, bytes are base64, durations are "1.5s", times are RFC
// 3339, enums are the names of their values.

export type Int64 = string | number;

/** `google.rpc.Status`, with the details that this client reads. */
export interface Status {
  code?: number;
  message?: string;
  details?: Detail[];
}

export interface Detail {
  "@type"?: string;
  reason?: string;
  retryDelay?: string;
  fieldViolations?: { field?: string }[];
}

/** `switchyard.v1.Event`. */
export interface WireEvent {
  id?: string;
  topic?: string;
  type?: string;
  source?: string;
  time?: string;
  key?: string;
  contentType?: string;
  attributes?: Record<string, string>;
  ttl?: string;
  text?: string;
  data?: string;
}

/** `switchyard.v1.ReceivedEvent`. */
export interface WireReceived {
  event?: WireEvent;
  stream?: string;
  sequence?: Int64;
  appendTime?: string;
  attempt?: number;
  lastFailure?: string;
  redelivered?: boolean;
}

export interface WireCredit {
  events?: Int64;
  bytes?: Int64;
}

export interface WireStart {
  preset?: string;
  afterSequence?: Int64;
  atTime?: string;
  resumeToken?: string;
}

/** `switchyard.v1.SubscriptionSpec`. */
export interface WireSpec {
  filters?: string[];
  stream?: string;
  start?: WireStart;
  group?: string;
  ackMode?: "ACK_MODE_NONE" | "ACK_MODE_EXPLICIT";
  credit?: WireCredit;
  overflow?: string;
  onGap?: string;
  maxEvents?: Int64;
  maxBatch?: number;
  reattach?: { heldSequences?: Int64[] };
}

export interface WirePrecondition {
  lastSequence?: Int64;
  lastTopicSequence?: Int64;
}

export interface WireAcknowledge {
  subscriptionId?: Int64;
  sequences?: Int64[];
  outcome?: string;
  delay?: string;
  reason?: string;
}

/** What a client says. A publish is put together from texts: see `publishFrame`. */
export interface Command {
  hello?: { clientName?: string; labels?: Record<string, string>; heartbeatInterval?: string; previousSessionId?: string };
  subscribe?: { subscriptionId: Int64; spec: WireSpec };
  unsubscribe?: { subscriptionId: Int64 };
  credit?: { subscriptionId: Int64; credit: WireCredit };
  acknowledge?: WireAcknowledge;
  publish?: { events: WireEvent[]; precondition?: WirePrecondition };
  authenticate?: { token: string };
}

/** `switchyard.v1.SessionRequest`. */
export interface SessionRequest extends Command {
  requestId?: Int64;
}

export interface WireLimits {
  maxFrameBytes?: Int64;
  maxPublishEvents?: number;
}

export interface WireWelcome {
  sessionId?: string;
  limits?: WireLimits;
  credentialExpiry?: string;
  alternatives?: string[];
}

export interface WireSubscribed {
  subscriptionId?: Int64;
  epoch?: Int64;
  startSequence?: Int64;
  earliestSequence?: Int64;
  latestSequence?: Int64;
  ackDeadline?: string;
  reattached?: boolean;
  lostSequences?: Int64[];
}

export interface WireEvents {
  subscriptionId?: Int64;
  events?: WireReceived[];
  resumeToken?: string;
  /** What these events cost of the credit together, from hubs that say so. */
  creditBytes?: Int64;
}

export interface WireProgress {
  subscriptionId?: Int64;
  resumeToken?: string;
  caughtUp?: boolean;
  lag?: Int64;
}

export interface WireGap {
  subscriptionId?: Int64;
  count?: Int64;
  fromSequence?: Int64;
  toSequence?: Int64;
  reason?: string;
}

export interface WireEnded {
  subscriptionId?: Int64;
  status?: Status;
  reason?: string;
  resumeToken?: string;
  retry?: { retry?: boolean; delay?: string };
}

export interface WirePublishResult {
  status?: Status;
  stream?: string;
  sequence?: Int64;
  epoch?: Int64;
  duplicate?: boolean;
  matched?: Int64;
  durability?: string;
}

export interface WireAckResult {
  sequence?: Int64;
  status?: Status;
}

/** `switchyard.v1.SessionResponse`: exactly one frame. What this client does not know is ignored. */
export interface SessionResponse {
  requestId?: Int64;
  welcome?: WireWelcome;
  subscribed?: WireSubscribed;
  events?: WireEvents;
  progress?: WireProgress;
  gap?: WireGap;
  ended?: WireEnded;
  published?: { results?: WirePublishResult[] };
  acknowledged?: { subscriptionId?: Int64; results?: WireAckResult[] };
  error?: Status;
  credentialExpiring?: { deadline?: string };
  draining?: { deadline?: string; reconnectDelay?: string; alternatives?: string[] };
  heartbeat?: { time?: string };
  pong?: { nonce?: string };
}

/** A command as the text of its frame. */
export function commandFrame(requestId: number, command: Command): string {
  return JSON.stringify({ requestId: String(requestId), ...command });
}

/** A publish of events that were encoded before. */
export function publishFrame(requestId: number, events: readonly string[], precondition?: WirePrecondition): string {
  const only = precondition === undefined ? "" : `,"precondition":${JSON.stringify(precondition)}`;
  return `{"requestId":"${requestId}","publish":{"events":[${events.join(",")}]${only}}}`;
}

/** A number that is small enough to be one: ids, counts and sizes. */
export function count(value: Int64 | undefined): number {
  return value === undefined ? 0 : Number(value);
}

/** A sequence or an epoch, exactly. */
export function exact(value: Int64 | undefined): bigint {
  return value === undefined ? 0n : BigInt(value);
}

/** A duration in milliseconds, if it is there and is one. */
export function millis(duration: string | undefined): number | undefined {
  const seconds = duration?.endsWith("s") === true ? Number(duration.slice(0, -1)) : Number.NaN;
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}

/** Milliseconds as a duration. */
export function duration(milliseconds: number): string {
  const whole = Math.round(milliseconds);
  const rest = whole % 1000;
  return `${Math.trunc(whole / 1000)}${rest === 0 ? "" : `.${String(Math.abs(rest)).padStart(3, "0")}`}s`;
}

/** How many bytes a text takes in UTF-8. */
export function utf8Length(text: string): number {
  let bytes = text.length;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit > 0x7ff) {
      bytes += 2;
      // Two units of a pair are four bytes together; one alone becomes the replacement character, which is three.
      if (unit >= 0xd800 && unit < 0xdc00 && isLow(text.charCodeAt(at + 1))) {
        at += 1;
      }
    } else if (unit > 0x7f) {
      bytes += 1;
    }
  }
  return bytes;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000;
}

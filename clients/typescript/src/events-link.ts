// A session where WebSockets do not come through: every subscription that is not of a group is a request of its own whose answer
// is an event stream, and every publish is a request. To the machine it is a session like any other.
//
// Credit is kept by reading no further than it goes: what is not read stops the hub. Members of groups wait for a session over
// a WebSocket, for which the client looks again every few minutes.

import { failure, ofStatus } from "./error.js";
import { type StreamMessage, StreamParser } from "./event-stream.js";
import { statusOfAnswer } from "./http.js";
import type { Hears, Link } from "./link.js";
import { sizesOf } from "./size.js";
import {
  count,
  duration,
  millis,
  type SessionRequest,
  type SessionResponse,
  type Status,
  type WireCredit,
  type WireEvents,
  type WireReceived,
  type WireSpec,
} from "./wire.js";

/** After this long the client goes to look whether WebSockets come through now, in milliseconds. */
const LONGEST_WITHOUT_WEBSOCKET = 5 * 60_000;
/** Publishes that wait for the answer to another one; with more, the client waits. */
const MOST_POSTS = 2;
/** How long a subscription that needs a WebSocket waits before it asks again. */
const ASKS_AGAIN = "30s";
/** What is silent is told by the client, where no request is open. */
const USUAL_HEARTBEAT = 15_000;
/** A publish as it is written: see `publishFrame`. */
const PUBLISH = /^\{"requestId":"(\d+)","publish":(.*)\}$/s;

const STARTS: Record<string, string> = {
  START_PRESET_NEW: "new",
  START_PRESET_EARLIEST: "earliest",
  START_PRESET_LAST_PER_TOPIC: "last_per_topic",
};
const GAP_CHOICES: Record<string, string> = {
  GAP_POLICY_FAIL: "fail",
  GAP_POLICY_EARLIEST: "earliest",
  GAP_POLICY_LATEST: "latest",
};
const OVERFLOW_CHOICES: Record<string, string> = {
  OVERFLOW_POLICY_DROP_OLDEST: "drop_oldest",
  OVERFLOW_POLICY_CONFLATE: "conflate",
  OVERFLOW_POLICY_END: "end",
};

/** Where requests go, and with what. */
export interface Endpoint {
  readonly fetch: typeof fetch;
  readonly address: string;
  token: string | undefined;
}

/** The query of a subscription, and behind which cursor it goes on; `undefined` where only a session can serve it. */
export function queryOf(spec: WireSpec): { readonly query: URLSearchParams; readonly cursor: string | undefined } | undefined {
  const { preset, afterSequence, resumeToken, atTime } = spec.start ?? {};
  if (spec.group !== undefined || atTime !== undefined) {
    return undefined;
  }
  const query = new URLSearchParams();
  const add = (name: string, value: string | undefined): void => {
    if (value !== undefined) {
      query.append(name, value);
    }
  };
  add("stream", spec.stream);
  spec.filters?.forEach((filter) => add("filter", filter));
  add("start", STARTS[preset ?? ""]);
  add("after", afterSequence === undefined ? undefined : String(afterSequence));
  add("on_gap", GAP_CHOICES[spec.onGap ?? ""]);
  add("overflow", OVERFLOW_CHOICES[spec.overflow ?? ""]);
  add("limit", spec.maxEvents === undefined ? undefined : String(spec.maxEvents));
  return { query, cursor: resumeToken };
}

/** A session over single requests. */
export class EventsLink implements Link {
  private hears: Hears | undefined;
  private readonly readers = new Map<number, StreamReader>();
  private readonly stop = new AbortController();
  /** Publishes that were not answered, and the last of them: one goes behind the other. */
  private posts = 0;
  private lastPost: Promise<void> = Promise.resolve();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private heartbeat = USUAL_HEARTBEAT;
  private readonly began = Date.now();
  private isDraining = false;

  constructor(private readonly endpoint: Endpoint) {}

  start(hears: Hears): void {
    this.hears = hears;
    this.beat();
    const sessionId = `requests-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    this.soon({ welcome: { sessionId } });
  }

  /** Says that the hub is there as long as nobody could know better, and goes to look for a better way in the end. */
  private beat(): void {
    this.timer = setTimeout(() => {
      if (this.posts === 0 && this.readers.size === 0) {
        this.tell({ heartbeat: {} });
      }
      if (!this.isDraining && Date.now() - this.began >= LONGEST_WITHOUT_WEBSOCKET) {
        this.isDraining = true;
        this.tell({ draining: { reconnectDelay: "0s" } });
      }
      this.beat();
    }, this.heartbeat);
  }

  isFull(): boolean {
    return this.posts >= MOST_POSTS;
  }

  write(frame: string): void {
    const publish = PUBLISH.exec(frame);
    if (publish !== null) {
      this.post(publish[1] as string, publish[2] as string);
      return;
    }
    const command = JSON.parse(frame) as SessionRequest;
    if (command.hello !== undefined) {
      this.heartbeat = millis(command.hello.heartbeatInterval) ?? USUAL_HEARTBEAT;
    } else if (command.authenticate !== undefined) {
      this.endpoint.token = command.authenticate.token;
    } else if (command.subscribe !== undefined) {
      this.subscribe(count(command.subscribe.subscriptionId), command.subscribe.spec);
    } else if (command.credit !== undefined) {
      this.readers.get(count(command.credit.subscriptionId))?.grant(command.credit.credit);
    } else if (command.unsubscribe !== undefined) {
      this.unsubscribe(count(command.unsubscribe.subscriptionId));
    } else if (command.acknowledge !== undefined) {
      this.soon({ requestId: command.requestId ?? 0, error: needsWebSocket() });
    }
  }

  halfClose(): void {
    void this.lastPost.then(() => this.hears?.lost("ended"));
  }

  abort(): void {
    this.hears = undefined;
    clearTimeout(this.timer);
    this.stop.abort();
  }

  private tell(response: SessionResponse): void {
    this.hears?.frame(response);
  }

  /** Tells it when whoever writes has written. */
  private soon(response: SessionResponse): void {
    queueMicrotask(() => this.tell(response));
  }

  private lose(error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    this.hears?.lost({ failed: failure("lost", "UNAVAILABLE", "NOT_CONNECTED", why) });
  }

  // Subscriptions.

  private subscribe(id: number, spec: WireSpec): void {
    const asked = queryOf(spec);
    if (asked === undefined) {
      const retry = { retry: true, delay: ASKS_AGAIN };
      this.soon({ ended: { subscriptionId: id, status: needsWebSocket(), reason: "END_REASON_CONFIG_MISMATCH", retry } });
      return;
    }
    const reader = new StreamReader(id, spec.credit ?? {}, (response) => this.tell(response));
    this.readers.set(id, reader);
    const headers = { accept: "text/event-stream", ...(asked.cursor !== undefined && { "last-event-id": asked.cursor }) };
    const signal = AbortSignal.any([this.stop.signal, reader.stop.signal]);
    this.request(`/v1/events?${asked.query}`, { headers, signal }).then(
      (response) => this.read(id, reader, response),
      (error: unknown) => this.readFailed(reader, error),
    );
  }

  private async read(id: number, reader: StreamReader, response: Response): Promise<void> {
    try {
      if (response.status !== 200 || response.body === null) {
        const other = { code: 14, message: `an event stream was answered with ${response.status}` };
        this.refused(id, statusOfAnswer(await response.text()) ?? other);
        return;
      }
      await reader.read(response.body);
      // One that has ended is over; any other was lost, and with it the connection.
      if (reader.hasEnded) {
        this.readers.delete(id);
      } else {
        throw new Error("an event stream has ended without saying why");
      }
    } catch (error) {
      this.readFailed(reader, error);
    }
  }

  /** The hub refuses a subscription. */
  private refused(id: number, status: Status): void {
    this.readers.delete(id);
    const { reason, retryable, retryAfterMs = 0 } = ofStatus("ended", status);
    const retry = { retry: retryable, delay: duration(retryAfterMs) };
    this.tell({ ended: { subscriptionId: id, status, reason: `END_REASON_${reason}`, retry } });
  }

  private readFailed(reader: StreamReader, error: unknown): void {
    if (!reader.stop.signal.aborted && !reader.hasEnded) {
      this.lose(error);
    }
  }

  private unsubscribe(id: number): void {
    this.readers.get(id)?.stop.abort();
    this.readers.delete(id);
    this.soon({ ended: { subscriptionId: id, reason: "END_REASON_CLIENT_UNSUBSCRIBED" } });
  }

  // Publishes.

  private post(requestId: string, body: string): void {
    this.posts += 1;
    this.lastPost = this.lastPost.then(async () => {
      try {
        const headers = { "content-type": "application/json" };
        const answer = await this.request("/v1/publish", { method: "POST", headers, body, signal: this.stop.signal });
        const text = await answer.text();
        this.posts -= 1;
        if (answer.status === 200) {
          this.tell({ requestId, published: JSON.parse(text) as { results?: [] } });
          return;
        }
        const status = statusOfAnswer(text);
        if (status === undefined) {
          throw new Error(`a publish was answered with ${answer.status}`);
        }
        this.tell({ requestId, error: status });
      } catch (error) {
        this.lose(error);
      }
    });
  }

  private request(path: string, init: RequestInit & { headers: Record<string, string> }): Promise<Response> {
    const { fetch: send, address, token } = this.endpoint;
    const headers = token === undefined ? init.headers : { ...init.headers, authorization: `Bearer ${token}` };
    return send(`${address}${path}`, { ...init, headers, cache: "no-store", redirect: "error" });
  }
}

function needsWebSocket(): Status {
  const reason = { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "NEEDS_WEBSOCKET" };
  const message = "groups and starts at a time need a WebSocket, and none comes through to the hub";
  return { code: 9, message, details: [reason] };
}

/** Reads one event stream, no further than its credit goes. */
class StreamReader {
  readonly stop = new AbortController();
  hasEnded = false;
  private events: number;
  private bytes: number;
  private resume: () => void = () => undefined;

  constructor(
    private readonly id: number,
    credit: WireCredit,
    private readonly tell: (response: SessionResponse) => void,
  ) {
    this.events = count(credit.events);
    this.bytes = count(credit.bytes);
  }

  grant(credit: WireCredit): void {
    this.events += count(credit.events);
    this.bytes += count(credit.bytes);
    this.resume();
  }

  async read(body: ReadableStream<Uint8Array>): Promise<void> {
    const parser = new StreamParser();
    const source = body.getReader();
    try {
      for (;;) {
        const { done, value } = await source.read();
        if (done) {
          return;
        }
        const messages = parser.take(value);
        if (messages.length === 0) {
          // Whatever comes shows that the hub is there.
          this.tell({ heartbeat: {} });
        }
        await this.pass(messages);
      }
    } finally {
      source.cancel().catch(() => undefined);
    }
  }

  /** Passes messages on, events that follow each other together. */
  private async pass(messages: readonly StreamMessage[]): Promise<void> {
    let some: WireReceived[] = [];
    let token = "";
    const flush = (): void => {
      if (some.length > 0) {
        this.tell({ events: { subscriptionId: this.id, events: some, resumeToken: token } satisfies WireEvents });
        some = [];
      }
    };
    for (const { name, data, id } of messages) {
      if (name !== "") {
        flush();
        this.named(name, data, id);
        continue;
      }
      while (this.events <= 0 || this.bytes <= 0) {
        flush();
        await new Promise<void>((resolve) => {
          this.resume = resolve;
        });
      }
      const event = JSON.parse(data) as WireReceived;
      this.events -= 1;
      this.bytes -= sizesOf({ events: [event] })[0] ?? 0;
      some.push(event);
      token = id;
    }
    flush();
  }

  /** A frame that is not events, as the hub would send it in a session. */
  private named(name: string, data: string, id: string): void {
    if (name === "welcome") {
      return;
    }
    const frame = { ...(JSON.parse(data) as object), subscriptionId: this.id };
    if (name === "ended") {
      this.hasEnded = true;
    }
    const isPlaced = name === "progress" && id !== "";
    this.tell({ [name]: isPlaced ? { ...frame, resumeToken: id } : frame });
  }
}

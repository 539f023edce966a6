// How a client is made: every setting, with its default and its range.

import type { Logger } from "./core.js";
import { invalid } from "./error.js";
import type { TraceContext } from "./event.js";
import type { Transport } from "./link.js";
import type { Amount } from "./machine/entry.js";
import type { Status } from "./state.js";
import type { TokenSource } from "./token.js";
import type { WebSocketConstructor } from "./websocket.js";
import { utf8Length } from "./wire.js";

/** The limits of a hub for names and labels: bytes of a name, labels, and bytes of labels. */
const LIMITS_OF_HELLO = { nameBytes: 256, labels: 32, labelBytes: 4096 };
/** How long a hub may be silent, in milliseconds: what is usual, and the range that a hub allows. */
const HEARTBEAT = { usual: 15_000, shortest: 1000, longest: 300_000 };
/** What may wait to be published or for the answer, unless told otherwise. */
const QUEUE: Amount = { events: 8192, bytes: 16 * 1024 * 1024 };

/** The settings of a client. */
export interface Options {
  /**
   * Hubs that serve the same events, such as `https://hub.example`: where their web listener is. They are tried in random
   * order, the next one after each failure. Default in a browser: where the page is from.
   */
  readonly addresses?: string | readonly string[];
  /**
   * The name of the client, such as that of its program: for logs and lists of the hub, and the source of its events. A hub
   * waits only for clients with a name to come back to what they hold of a group. Default: empty.
   */
  readonly name?: string;
  /** Free labels for lists of the hub. */
  readonly labels?: Readonly<Record<string, string>>;
  /** A bearer token, or where tokens come from: one for every session, and a fresh one before it expires. */
  readonly token?: string | TokenSource;
  /** How often an idle hub is to say that it is there, in milliseconds. Default: 15 s. */
  readonly heartbeatMs?: number;
  /** The most events that wait to be published, or for the answer. Default: 8192. */
  readonly queueEvents?: number;
  /** The same in bytes. Default: 16 MiB. */
  readonly queueBytes?: number;
  /** Comes back even if an operator has ended its session, which otherwise fails the client. */
  readonly returnsWhenTerminated?: boolean;
  /** Called on every change of state. */
  readonly onState?: (status: Status) => void;
  /** Adds `traceparent` and `tracestate` to the attributes of what is published. */
  readonly traceContext?: TraceContext;
  /** Where changes of state are logged. Default: the console, for warnings and errors; `false`: nowhere. */
  readonly logger?: Logger | false;
  /** The WebSocket to use, such as that of the `ws` package. Default: the global one, of browsers and of Node 22. */
  readonly webSocket?: WebSocketConstructor;
  /**
   * How to reach the hub: by `"websocket"`; by `"events"`, which are event streams and single requests, and cannot serve
   * groups; or by `"auto"`, which takes the second where the first does not come through. Default: `"auto"`.
   */
  readonly transport?: Transport;
  /** What single requests are made with. Default: the global one. */
  readonly fetch?: typeof fetch;
}

/** Settings that were checked. */
export interface CheckedOptions {
  readonly addresses: readonly string[];
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly source: TokenSource | undefined;
  /** Where the hub refuses a token, another one may come. */
  readonly renews: boolean;
  readonly heartbeat: number;
  readonly queue: Amount;
  readonly logger: Logger | undefined;
  readonly webSocket: WebSocketConstructor | undefined;
  readonly transport: Transport;
  readonly fetch: typeof fetch;
}

const QUIET_CONSOLE: Logger = {
  info: () => undefined,
  warn: (text) => console.warn(text),
  error: (text) => console.error(text),
};

/** Finds what can never work. */
export function checkedOptions(options: Options): CheckedOptions {
  const { name = "", labels = {}, token, heartbeatMs: heartbeat = HEARTBEAT.usual } = options;
  const queue = { events: options.queueEvents ?? QUEUE.events, bytes: options.queueBytes ?? QUEUE.bytes };
  const labelBytes = utf8Length(Object.entries(labels).flat().join(""));
  if (utf8Length(name) > LIMITS_OF_HELLO.nameBytes) {
    throw invalid("name", `has more than ${LIMITS_OF_HELLO.nameBytes} bytes`);
  }
  if (Object.keys(labels).length > LIMITS_OF_HELLO.labels) {
    throw invalid("labels", `are more than ${LIMITS_OF_HELLO.labels}`);
  }
  if (labelBytes > LIMITS_OF_HELLO.labelBytes) {
    throw invalid("labels", `have more than ${LIMITS_OF_HELLO.labelBytes} bytes`);
  }
  if (!(heartbeat >= HEARTBEAT.shortest && heartbeat <= HEARTBEAT.longest)) {
    throw invalid("heartbeatMs", "must be 1 second to 5 minutes");
  }
  if (!(queue.events >= 1)) {
    throw invalid("queueEvents", "must be positive");
  }
  if (!(queue.bytes >= 1)) {
    throw invalid("queueBytes", "must be positive");
  }
  const { transport = "auto" } = options;
  const webSocket = options.webSocket ?? (globalThis.WebSocket as WebSocketConstructor | undefined);
  // Whoever says nothing of that wants groups to work, and not to find out why they do not.
  if (webSocket === undefined && transport !== "events") {
    throw invalid("webSocket", "is missing: before version 22 Node has none, so give that of the ws package");
  }
  return {
    addresses: checkedAddresses(options.addresses),
    name,
    labels,
    source: typeof token === "string" ? () => token : token,
    renews: typeof token === "function",
    heartbeat,
    queue,
    logger: options.logger === false ? undefined : (options.logger ?? QUIET_CONSOLE),
    webSocket,
    transport,
    // Browsers want to be its `this`.
    fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
  };
}

function checkedAddresses(given: string | readonly string[] | undefined): string[] {
  const here = (globalThis as { location?: { origin?: string } }).location?.origin;
  const addresses = given === undefined ? [here ?? ""].filter((address) => address !== "") : [given].flat();
  if (addresses.length === 0) {
    throw invalid("addresses", "are missing");
  }
  return addresses.map((address) => {
    // A URL ends its origin with a slash, which is the same address without it.
    const text = address.replace(/\/+$/, "");
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== "" || url.hash !== "") {
      throw invalid("addresses", `has ${JSON.stringify(address)}: not a URL such as https://hub.example`);
    }
    return text;
  });
}

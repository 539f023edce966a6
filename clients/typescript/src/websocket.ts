// A session over a WebSocket: one frame a message, as canonical JSON. Works with the WebSocket of browsers and of Node 22, and
// with the `ws` package, of which it uses what it has beyond that: why a handshake failed, and ending a connection at once.

import { failure, type SwitchyardError } from "./error.js";
import { errorOfAnswer, notConnected } from "./http.js";
import type { Hears, Link } from "./link.js";
import type { Loss } from "./machine/machine.js";
import { codeOfReason, REASONS } from "./reasons.js";
import type { SessionResponse } from "./wire.js";

/** What is on its way into the transport, in bytes, before more waits. */
const MOST_BUFFERED = 1024 * 1024;
/** No answer to a handshake that is of use is larger, in bytes. */
const MOST_ANSWER = 64 * 1024;
/** Close codes; those of reasons are their numbers above the last. */
const CLOSE = { normal: 1000, goingAway: 1001, reasons: 4000 };

/** What this client needs of a WebSocket. */
export interface WebSocketLike {
  readonly protocol: string;
  readonly bufferedAmount: number;
  // The events of implementations have types of their own.
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** What the `ws` package has besides. */
interface Extras {
  on?(event: "unexpected-response", hears: (request: Destroyable, response: Answer) => void): void;
  terminate?(): void;
}

interface Destroyable {
  destroy(): void;
}

interface Answer {
  readonly statusCode?: number;
  setEncoding(encoding: string): void;
  on(event: string, hears: (data: string) => void): void;
}

/** Opens a session with the hub at this address. Takes no longer than `timeout` milliseconds. */
export function openWebSocket(
  webSocket: WebSocketConstructor,
  address: string,
  protocols: string[],
  timeout: number,
  signal: AbortSignal,
): Promise<Link> {
  return new Promise((resolve, reject) => {
    const socket: WebSocketLike & Extras = new webSocket(urlOf(address), protocols);
    const link = new WebSocketLink(socket);
    const settled = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    };
    const fail = (error: SwitchyardError): void => {
      settled();
      link.abort();
      reject(error);
    };
    const abort = (): void => fail(notConnected("it was not wanted any more"));
    const late = (): void => {
      const text = `the hub did not answer within ${timeout / 1000} s`;
      fail(failure("lost", "UNAVAILABLE", "NOTHING_HEARD", text));
    };
    const timer = setTimeout(late, timeout);
    signal.addEventListener("abort", abort);
    let why = "the connection could not be made";
    socket.onerror = (event: { message?: string }) => {
      why = event.message ?? why;
    };
    socket.onclose = () => fail(notConnected(why));
    socket.onopen = () => {
      if (socket.protocol !== protocols[0]) {
        fail(notConnected(`what answers does not speak ${protocols[0]}`));
        return;
      }
      settled();
      link.opened();
      resolve(link);
    };
    socket.on?.("unexpected-response", (request, response) => {
      // Nothing else is heard of this socket from now on.
      socket.onclose = null;
      refusal(response, (error) => {
        request.destroy();
        fail(error);
      });
    });
  });
}

/** The URL of sessions at an address. */
export function urlOf(address: string): string {
  return `${address.replace(/^http/, "ws").replace(/\/+$/, "")}/v1/ws`;
}

/** Why the handshake was refused, as the hub says it in the body of its answer. */
function refusal(response: Answer, tell: (error: SwitchyardError) => void): void {
  let body = "";
  response.setEncoding("utf8");
  response.on("data", (data) => {
    body = body.length < MOST_ANSWER ? body + data : body;
  });
  response.on("error", () => undefined);
  response.on("close", () => tell(errorOfAnswer(response.statusCode ?? 0, body)));
}

class WebSocketLink implements Link {
  private hears: Hears | undefined;
  /** What came before anybody heard. */
  private early: (SessionResponse | Loss)[] = [];
  private isOver = false;

  constructor(private readonly socket: WebSocketLike & Extras) {}

  /** The handshake is done. */
  opened(): void {
    const { socket } = this;
    socket.onopen = null;
    socket.onerror = null;
    socket.onmessage = ({ data }: { data: unknown }) => this.message(data);
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => this.lost(lossOf(code, reason));
  }

  start(hears: Hears): void {
    this.hears = hears;
    for (const one of this.early.splice(0)) {
      if (typeof one === "string" || "failed" in one) {
        this.lost(one);
      } else if (!this.isOver) {
        hears.frame(one);
      }
    }
  }

  isFull(): boolean {
    return this.socket.bufferedAmount >= MOST_BUFFERED;
  }

  write(frame: string): void {
    this.socket.send(frame);
  }

  halfClose(): void {
    this.socket.close(CLOSE.normal);
  }

  abort(): void {
    this.isOver = true;
    const { socket } = this;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    // What is aborted fails, and nobody wants to know.
    socket.onerror = () => undefined;
    socket.close(CLOSE.normal);
    // A browser waits for the hub by itself; others would keep the program for that.
    socket.terminate?.();
  }

  private message(data: unknown): void {
    let response: SessionResponse | undefined;
    try {
      response = typeof data === "string" ? (JSON.parse(data) as SessionResponse) : undefined;
    } catch {
      response = undefined;
    }
    if (typeof response !== "object" || response === null) {
      this.lost({ failed: failure("lost", "INTERNAL", "", "what came is no frame of a session") });
    } else if (this.hears === undefined) {
      this.early.push(response);
    } else if (!this.isOver) {
      this.hears.frame(response);
    }
  }

  private lost(loss: Loss): void {
    if (this.isOver) {
      return;
    }
    if (this.hears === undefined) {
      this.early.push(loss);
      return;
    }
    this.isOver = true;
    this.hears.lost(loss);
  }
}

/** What a close says, where no frame has said more: by its code, or the name of a reason in its text. */
export function lossOf(code: number, text: string): Loss {
  if (code === CLOSE.normal) {
    return "ended";
  }
  const named = Object.keys(REASONS).find((number) => REASONS[Number(number)] === text);
  const number = named === undefined ? code - CLOSE.reasons : Number(named);
  const reason = REASONS[number];
  if (reason !== undefined) {
    return { failed: failure("lost", codeOfReason(number), reason, "the hub ended the session") };
  }
  if (code === CLOSE.goingAway) {
    return { failed: failure("lost", "UNAVAILABLE", "DRAINING", "the hub is going away") };
  }
  return { failed: failure("lost", "UNAVAILABLE", "", `the connection was lost (close code ${code})`) };
}

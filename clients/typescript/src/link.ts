// Reaching a hub: from an address and a token to the frames of a session. Owns what a connection is to its driver; it never
// decides when to connect, nor whether to try again.

import { failure, ofStatus, SwitchyardError } from "./error.js";
import { toBase64Url } from "./event.js";
import { EventsLink } from "./events-link.js";
import { notConnected, statusOfAnswer } from "./http.js";
import { type Loss, OPEN_TIMEOUT } from "./machine/machine.js";
import type { Fresh } from "./machine/refresh.js";
import type { TokenSource } from "./token.js";
import { openWebSocket, type WebSocketConstructor } from "./websocket.js";
import type { SessionResponse } from "./wire.js";

/** How long a source may take to give a token. */
const TOKEN_TIMEOUT = 30_000;
/** How long a WebSocket may take to open where there is another way. */
const FIRST_CHOICE_TIMEOUT = 5000;
/** After so many attempts in a row in which a WebSocket did not come through to a hub that is there, the other way is taken. */
const BLOCKED_AFTER = 2;
/** The status of the hub for a request to the path of sessions that asks for no WebSocket. */
const UPGRADE_REQUIRED = 426;

/** How a client reaches a hub: by WebSockets, by event streams and requests, or by these where the first do not come through. */
export type Transport = "auto" | "websocket" | "events";

/** What hears of a session. Nothing comes after its loss. */
export interface Hears {
  frame(response: SessionResponse): void;
  lost(loss: Loss): void;
}

/** The connection of one session. */
export interface Link {
  /** Begins to tell of what comes; until then that is kept. */
  start(hears: Hears): void;
  /** Whether it is better to wait before more is written. */
  isFull(): boolean;
  write(frame: string): void;
  /** Nothing more is written: the hub is to end the session. */
  halfClose(): void;
  /** Leaves at once. Nothing is heard of it any more. */
  abort(): void;
}

/** A session that is open. */
export interface Opening {
  readonly link: Link;
  /** How long its token is good, in milliseconds, if that is known. */
  readonly life: number | undefined;
  /** How long it took to open it, besides the time that the token took. */
  readonly took: number;
}

/** The way to the hubs of one client. */
export class Links {
  /** Attempts in a row in which a WebSocket did not come through to a hub that is there. */
  private blocked = 0;

  constructor(
    private readonly webSocket: WebSocketConstructor | undefined,
    private readonly send: typeof fetch,
    private readonly transport: Transport,
    private readonly source: TokenSource | undefined,
  ) {}

  /** Opens a session. */
  async open(address: string, signal: AbortSignal): Promise<Opening> {
    const token = await this.fetchToken();
    signal.throwIfAborted();
    const began = performance.now();
    const link = await this.connect(address, token?.value, signal);
    return { link, life: token?.life, took: performance.now() - began };
  }

  private async connect(address: string, token: string | undefined, signal: AbortSignal): Promise<Link> {
    if (this.webSocket === undefined || this.transport === "events") {
      await this.ask(address, token, OPEN_TIMEOUT, signal);
      return new EventsLink({ fetch: this.send, address, token });
    }
    const protocols = ["switchyard.v1.json"];
    if (token !== undefined) {
      protocols.push(`switchyard.bearer.${toBase64Url(token)}`);
    }
    const isOnly = this.transport === "websocket";
    try {
      const timeout = isOnly ? OPEN_TIMEOUT : FIRST_CHOICE_TIMEOUT;
      const link = await openWebSocket(this.webSocket, address, protocols, timeout, signal);
      this.blocked = 0;
      return link;
    } catch (error) {
      const isSaid = error instanceof SwitchyardError && error.reason !== "NOT_CONNECTED" && error.reason !== "NOTHING_HEARD";
      if (isOnly || isSaid || signal.aborted) {
        throw error;
      }
      await this.ask(address, token, OPEN_TIMEOUT - FIRST_CHOICE_TIMEOUT, signal);
      this.blocked += 1;
      if (this.blocked < BLOCKED_AFTER) {
        throw error;
      }
      return new EventsLink({ fetch: this.send, address, token });
    }
  }

  /** Finds out whether the hub is there and takes the token. Pages hear of a handshake that fails neither why nor from whom. */
  private async ask(address: string, token: string | undefined, timeout: number, signal: AbortSignal): Promise<void> {
    const answer = await this.send(`${address}/v1/ws`, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeout)]),
    });
    const status = statusOfAnswer(await answer.text());
    if (answer.status !== UPGRADE_REQUIRED || status === undefined) {
      throw status === undefined
        ? notConnected(`what answers is no hub: its status is ${answer.status}`)
        : ofStatus("lost", status);
    }
  }

  /** A token that is good now, if this client has any. */
  async fetchToken(): Promise<Fresh | undefined> {
    if (this.source === undefined) {
      return undefined;
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(noToken(`not after ${TOKEN_TIMEOUT / 1000} s`)), TOKEN_TIMEOUT);
    });
    try {
      const token = await Promise.race([this.source(), late]);
      const { value, expires } = typeof token === "string" ? { value: token, expires: undefined } : token;
      return { value: value.trim(), life: expires === undefined ? undefined : expires.getTime() - Date.now() };
    } catch (error) {
      throw noToken(error instanceof Error ? error.message : String(error));
    } finally {
      clearTimeout(timer);
    }
  }
}

function noToken(why: string): SwitchyardError {
  return failure("source", "UNAVAILABLE", "TOKEN_SOURCE", `no token: ${why}`);
}

// The driver of this client for the judge of clients: JSON lines in, JSON lines out. clients/conformance/README.md describes the
// language.

import { createInterface } from "node:readline";
import WebSocket from "ws";

import { Client, type DrainMode, type Status, SwitchyardError, type Token } from "../src/index.js";
import type { Connect, Order, Subscribe } from "./orders.js";
import { Publisher } from "./publisher.js";
import { Reader } from "./reader.js";
import { failureOf, say } from "./reports.js";

/** How long the client may take to end, in milliseconds. */
const LAST = 1000;

class Driver {
  private client: Client | undefined;
  private publisher: Publisher | undefined;
  private readonly readers = new Map<string, Reader>();
  /** What the source of tokens gives: a token and how long it is good. */
  private token: { readonly value: string; readonly life: number | undefined } | undefined;

  /** Waits for nothing that the client has to do. */
  obey(order: Order): void {
    switch (order.do) {
      case "connect":
        this.connect(order);
        break;
      case "token":
        this.token = { value: order.value, life: order.life_ms ?? undefined };
        break;
      case "token_fails":
        this.token = undefined;
        break;
      case "subscribe":
        this.subscribe(order);
        break;
      case "publish":
        this.need(this.publisher, "no client").obey(order);
        break;
      case "stats": {
        const { queuedPublishes, eventsInHand, sessions } = this.need(this.client, "no client").stats;
        say({ is: "stats", queued: queuedPublishes, in_hand: eventsInHand, sessions });
        break;
      }
      case "drain":
        this.drain(order.timeout_ms, order.mode);
        break;
      default:
        this.need(this.readers.get(order.sub), `no subscription ${order.sub}`).obey(order);
    }
  }

  private need<T>(value: T | undefined, problem: string): T {
    if (value === undefined) {
      throw new Error(problem);
    }
    return value;
  }

  private connect({ addresses, heartbeat_ms = 1000, queue_events = 8192, token_source = false }: Connect): void {
    if (this.client !== undefined) {
      throw new Error("there is a client");
    }
    const client = new Client({
      addresses,
      name: "driver",
      heartbeatMs: heartbeat_ms,
      queueEvents: queue_events,
      ...(token_source && { token: () => this.fetch() }),
      onState: sayState,
      // Everything else goes to the standard error.
      logger: { info: console.error, warn: console.error, error: console.error },
      webSocket: WebSocket,
    });
    client.run().catch(() => undefined);
    this.client = client;
    this.publisher = new Publisher(client);
  }

  private fetch(): Token {
    const { value, life } = this.need(this.token, "no token");
    return life === undefined ? { value } : { value, expires: new Date(Date.now() + life) };
  }

  private subscribe(order: Subscribe): void {
    if (this.readers.has(order.sub)) {
      throw new Error(`${order.sub} is there`);
    }
    this.readers.set(order.sub, new Reader(this.need(this.client, "no client"), order));
  }

  private drain(timeoutMs: number, mode: DrainMode): void {
    this.need(this.client, "no client")
      .drain({ timeoutMs, mode })
      .then(
        ({ clean }) => say({ is: "drained", clean }),
        (error: unknown) => say({ is: "failed", text: `drain: ${String(error)}` }),
      );
  }

  /** Everything is dropped. What the hub does not answer is not waited for. */
  async close(): Promise<void> {
    await this.client?.drain({ timeoutMs: LAST, mode: "release" }).catch(() => undefined);
  }
}

function sayState({ state, reason, address, sessionId }: Status): void {
  say({ is: "state", state, reason: reason?.reason ?? "", address, session: sessionId });
}

async function main(): Promise<void> {
  const driver = new Driver();
  say({ is: "ready", driver: "typescript", protocol: 1 });
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line) as Order | { do: "close" };
    if (order.do === "close") {
      break;
    }
    try {
      driver.obey(order);
    } catch (error) {
      const text = error instanceof SwitchyardError ? failureOf(error).text : String(error);
      say({ is: "failed", text: `${line}: ${text}` });
    }
  }
  await driver.close();
  process.exit(0);
}

await main();

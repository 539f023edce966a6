// Where WebSockets do not come through: event streams, single requests, and the way there.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { StreamParser } from "../src/event-stream.js";
import { queryOf } from "../src/events-link.js";
import { type Client, connect, type Item, type Options } from "../src/index.js";
import { checked } from "../src/spec.js";
import { Network } from "./fake.js";
import { CODE, status } from "./world.js";

/** A hub that answers requests: a log of texts as the stream `s`, which is sent as fast as it is read. */
class Web {
  readonly log: string[] = [];
  readonly asked: URL[] = [];
  readonly cursors: (string | null)[] = [];
  readonly tokens: (string | null)[] = [];
  /** What requests are refused with. */
  refuses: { readonly http: number; readonly body: string } | undefined;
  /** Event streams that are open. */
  private readonly streams = new Set<ReadableStreamDefaultController<Uint8Array>>();
  /** How many messages were asked for. */
  pulled = 0;

  readonly fetch: typeof fetch = async (input, init) => {
    const url = new URL(String(input));
    const headers = new Headers(init?.headers);
    this.asked.push(url);
    this.tokens.push(headers.get("authorization"));
    await sleep(1);
    if (this.refuses !== undefined) {
      return new Response(this.refuses.body, { status: this.refuses.http });
    }
    switch (url.pathname) {
      case "/v1/ws":
        return Response.json({ code: CODE.INVALID_ARGUMENT, message: "this is for WebSockets" }, { status: 426 });
      case "/v1/publish":
        return this.publish(String(init?.body));
      default:
        this.cursors.push(headers.get("last-event-id"));
        return this.events(url, headers.get("last-event-id"), init?.signal ?? undefined);
    }
  };

  private publish(body: string): Response {
    const { events } = JSON.parse(body) as { events: { text?: string; topic?: string }[] };
    if (events.some((event) => event.topic === "denied")) {
      return Response.json(status(CODE.PERMISSION_DENIED, "TOPIC_DENIED"), { status: 403 });
    }
    const results = events.map((event) => {
      this.log.push(event.text ?? "");
      return { stream: "s", sequence: String(this.log.length), epoch: "1" };
    });
    return Response.json({ results });
  }

  private events(url: URL, cursor: string | null, signal?: AbortSignal): Response {
    if (url.searchParams.get("stream") !== "s") {
      return Response.json(status(CODE.NOT_FOUND, "STREAM_NOT_FOUND"), { status: 404 });
    }
    let at = Number(cursor?.split(".").at(-1) ?? 0);
    const put = (to: ReadableStreamDefaultController<Uint8Array>, text: string): void => to.enqueue(new TextEncoder().encode(text));
    const body = new ReadableStream<Uint8Array>(
      {
        start: (to) => {
          this.streams.add(to);
          signal?.addEventListener("abort", () => this.streams.delete(to));
          put(to, 'retry: 1000\n\nevent: welcome\ndata: {"sessionId":"x"}\n\n');
          put(to, `event: subscribed\ndata: {"subscriptionId":"1","epoch":"1","startSequence":"${at + 1}"}\n\n`);
        },
        pull: async (to) => {
          while (at >= this.log.length) {
            await sleep(1);
            if (!this.streams.has(to)) {
              return;
            }
          }
          this.pulled += 1;
          at += 1;
          const event = { event: { topic: "s.x", text: this.log[at - 1] }, stream: "s", sequence: String(at) };
          put(to, `id: c1.s.1.${at}\ndata: ${JSON.stringify(event)}\n\n`);
        },
      },
      { highWaterMark: 1 },
    );
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  }

  /** All event streams break, or end with something. */
  end(last?: string): void {
    for (const to of this.streams) {
      this.streams.delete(to);
      if (last === undefined) {
        to.error(new Error("connection reset"));
      } else {
        to.enqueue(new TextEncoder().encode(last));
        to.close();
      }
    }
  }
}

function clientOf(web: Web, options: Options = {}): Client {
  return connect({ addresses: "http://hub", logger: false, fetch: web.fetch, transport: "events", ...options });
}

async function until(is: () => boolean): Promise<void> {
  for (let turns = 0; !is(); turns += 1) {
    assert(turns < 3000, "it does not come");
    await sleep(1);
  }
}

async function take(items: { next(): Promise<Item | undefined> }, count: number): Promise<string[]> {
  const all: string[] = [];
  while (all.length < count) {
    const item = await items.next();
    assert(item !== undefined);
    if (item.kind === "events") {
      all.push(...item.events.map((event) => event.text ?? ""));
    }
  }
  return all;
}

test("an event stream is taken apart however its bytes are cut", () => {
  const text = ': hi\n\nid: 1\ndata: {"a":\ndata: "ä€"}\n\nevent: gap\r\ndata: {}\r\n\r\nretry: 5\n\ndata:x\nid\n\nid: 2\nevent: none\n\n';
  const bytes = new TextEncoder().encode(text);
  for (let size = 1; size <= bytes.length; size += 1) {
    const parser = new StreamParser();
    const messages = [];
    for (let at = 0; at < bytes.length; at += size) {
      messages.push(...parser.take(bytes.subarray(at, at + size)));
    }
    assert.deepEqual(
      messages,
      [
        { name: "", data: '{"a":\n"ä€"}', id: "1" },
        { name: "gap", data: "{}", id: "1" },
        { name: "", data: "x", id: "" },
      ],
      `in parts of ${size}`,
    );
  }
  const endless = new StreamParser();
  assert.throws(() => endless.take(new Uint8Array(17 * 1024 * 1024).fill(97)));
});

test("a spec becomes a query, and what only a session can serve becomes none", () => {
  const query = queryOf({ ...checked({ stream: "s", filters: ["a.>", "b"], from: "earliest", onGap: "latest", limit: 3 }).wire });
  assert.equal(String(query?.query), "stream=s&filter=a.%3E&filter=b&start=earliest&on_gap=latest&limit=3");
  const live = queryOf(checked({ filters: ["a"], overflow: "conflate" }).wire);
  assert.equal(String(live?.query), "filter=a&overflow=conflate");
  const resumed = queryOf({ stream: "s", start: { resumeToken: "c1.s.1.7" } });
  assert.deepEqual([String(resumed?.query), resumed?.cursor], ["stream=s", "c1.s.1.7"]);
  assert.equal(String(queryOf({ stream: "s", start: { afterSequence: "7" } })?.query), "stream=s&after=7");
  assert.equal(queryOf(checked({ stream: "s", group: "g" }).wire), undefined);
  assert.equal(queryOf(checked({ stream: "s", from: { at: new Date() } }).wire), undefined);
});

test("what is published by requests is read by event streams, and goes on behind the last event when they break", async () => {
  const web = new Web();
  const hub = clientOf(web, { token: "secret" });
  const orders = hub.subscribe({ stream: "s", from: "earliest" });
  const sequences = await Promise.all(["a", "b", "c"].map((text) => hub.publish({ topic: "s.x", text })));
  assert.deepEqual(sequences.map((one) => one.kind === "stored" && one.sequence), [1n, 2n, 3n]);
  assert.deepEqual(await take(orders, 3), ["a", "b", "c"]);
  assert.equal(hub.status.state, "up");
  assert(web.tokens.every((token) => token === "Bearer secret"));
  web.end();
  await until(() => hub.status.state === "waiting");
  await hub.publish({ topic: "s.x", text: "d" });
  assert.deepEqual(await take(orders, 1), ["d"]);
  assert.deepEqual(web.cursors, [null, "c1.s.1.3"]);
  await assert.rejects(hub.publish({ topic: "denied" }), { kind: "refused", reason: "TOPIC_DENIED" });
  const left = await hub.drain();
  assert(left.clean);
});

test("no more is read than there is room for", async () => {
  const web = new Web();
  web.log.push(...Array.from({ length: 50 }, (_, at) => String(at)));
  const hub = clientOf(web);
  const orders = hub.subscribe({ stream: "s", from: "earliest", window: 4 });
  await until(() => hub.stats.eventsInHand === 4);
  await sleep(20);
  assert.equal(hub.stats.eventsInHand, 4);
  assert(web.pulled <= 8, `${web.pulled} were read`);
  assert.equal((await take(orders, 50)).length, 50);
  await hub.close();
});

test("ends are those of the hub, gaps come in their place, and members wait for a WebSocket", async () => {
  const web = new Web();
  const hub = clientOf(web);
  await assert.rejects(hub.subscribe({ stream: "none" }).next(), { kind: "ended", reason: "STREAM_NOT_FOUND" });
  const orders = hub.subscribe({ stream: "s" });
  await orders.ready();
  web.end('event: gap\ndata: {"subscriptionId":"1","count":"3","reason":"GAP_REASON_OVERFLOW"}\n\nid: done\nevent: ended\ndata: {"subscriptionId":"1","reason":"END_REASON_LIMIT_REACHED"}\n\n');
  const gap = await orders.next();
  assert(gap?.kind === "gap" && gap.count === 3 && gap.reason === "overflow");
  assert.equal(await orders.next(), undefined);
  const member = hub.subscribe({ stream: "s", group: "g" });
  await sleep(10);
  assert(!member.isOpen);
  assert.equal(hub.status.state, "up", "nothing else suffers");
  await hub.close();
});

test("the other way is taken when WebSockets do not come through to a hub that is there, and not before", async () => {
  const network = new Network();
  network.refuses = true;
  const web = new Web();
  const hub = clientOf(web, { transport: "auto", webSocket: network.WebSocket });
  assert.equal((await hub.publish({ topic: "s.x", text: "a" })).kind, "stored");
  assert.equal(network.asked.length, 2);
  assert.deepEqual(web.asked.map((url) => url.pathname), ["/v1/ws", "/v1/ws", "/v1/publish"]);
  await hub.close();

  const none = new Web();
  none.refuses = { http: 502, body: "<html>" };
  const other = clientOf(none, { transport: "auto", webSocket: network.WebSocket });
  await until(() => network.asked.length >= 5);
  assert.equal(other.stats.sessions, 0);
  assert.equal(other.status.reason?.reason, "NOT_CONNECTED");
  await other.close();
});

test("a page hears why its WebSocket is refused by asking", async () => {
  const network = new Network();
  network.refuses = true;
  const web = new Web();
  web.refuses = { http: 401, body: JSON.stringify(status(CODE.UNAUTHENTICATED, "CREDENTIAL_INVALID")) };
  const hub = clientOf(web, { transport: "auto", webSocket: network.WebSocket });
  await until(() => hub.status.state === "failed");
  assert.equal(hub.status.reason?.reason, "CREDENTIAL_INVALID");
});

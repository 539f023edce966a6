// An event stream as the package `eventsource` reads it, unmodified: it goes on by itself after the hub is killed, and stops
// for good when the stream has ended in order.
//
//   node events.mjs PROGRAM FOLDER

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

import { EventSource } from "eventsource";

const [program, folder] = process.argv.slice(2);
// Outside the range from which the system takes ports, so that it is still free when the hub is started again.
let web = `127.0.0.1:${12_000 + Math.floor(Math.random() * 18_000)}`;
let url;

/** Starts a hub, where it was before if there was one. */
async function start() {
  const flags = ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--web-listen", web, "--data-dir", folder];
  const hub = spawn(program, ["serve", ...flags, "--log-format", "json"], { stdio: ["ignore", "ignore", "pipe"] });
  for await (const line of createInterface(hub.stderr)) {
    const said = JSON.parse(line);
    if (said.message !== "serving") continue;
    web = said.web_address;
    url = `http://${web}`;
    hub.stderr.resume();
    return hub;
  }
  throw new Error("the hub ended before it served");
}

async function post(path, body) {
  const response = await fetch(url + path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

const publish = (numbers) => post("/v1/publish", { events: numbers.map((n) => ({ topic: "s.x", text: String(n) })) });
const range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);

let hub = await start();
process.on("exit", () => hub.kill("SIGKILL"));
await post("/switchyard.v1.StreamService/CreateStream", { stream: { name: "s", filters: ["s.>"] } });
await publish(range(0, 50));

const source = new EventSource(`${url}/v1/events?stream=s&start=earliest`);
const got = [];
let more;
source.onmessage = ({ data, lastEventId }) => {
  const { event, sequence } = JSON.parse(data);
  assert.equal(lastEventId.split(".").at(-1), sequence);
  got.push(Number(event.text));
  more?.();
};
const until = async (count) => {
  while (got.length < count) await new Promise((resolve) => (more = resolve));
};
await until(50);

hub.kill("SIGKILL");
await once(hub, "exit");
hub = await start();
await publish(range(50, 100));
await until(100);
assert.deepEqual(got, range(0, 100), "nothing is lost and nothing comes twice");
source.close();

const limited = new EventSource(`${url}/v1/events?stream=s&start=earliest&limit=3`);
const ended = await new Promise((resolve) => limited.addEventListener("ended", resolve));
assert.equal(JSON.parse(ended.data).reason, "END_REASON_LIMIT_REACHED");
const closed = await new Promise((resolve) => {
  limited.onerror = (error) => limited.readyState === EventSource.CLOSED && resolve(error);
});
assert.equal(closed.code, 204, "it has come back once, and gives up");

console.log("ok");
process.exit(0);

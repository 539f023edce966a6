/** The real hub as a process, on ports that stay the same when it is killed and started again. */

import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const run = promisify(execFile);
/** The folder of the pages, and that of the project. */
export const PAGES = join(import.meta.dirname, "..");
export const ROOT = join(PAGES, "../..");
const PROGRAM = process.env.SWITCHYARD ?? join(ROOT, "target/debug/switchyard");

/** Addresses that are free, outside the range from which the system takes ports: so they still are when a hub starts again. */
async function freeAddresses(count) {
  const found = new Set();
  while (found.size < count) {
    const port = 12_000 + Math.floor(Math.random() * 18_000);
    const probe = createServer();
    const isFree = new Promise((told) => probe.once("error", () => told(false)).listen(port, "127.0.0.1", () => probe.close(() => told(true))));
    if (await isFree) found.add(`127.0.0.1:${port}`);
  }
  return [...found];
}

export class Hub {
  #folder = mkdtempSync(join(tmpdir(), "switchyard-pages-"));
  #child = null;
  /** `HOST:PORT` of the main listener and of the web listener. */
  server;
  web;

  /** A hub that serves the pages, with their streams. */
  static async start() {
    const hub = new Hub();
    [hub.server, hub.web] = await freeAddresses(2);
    try {
      await hub.go();
      await run(join(PAGES, "streams.sh"), [PROGRAM, "--server", hub.server]);
      return hub;
    } catch (error) {
      await hub.end();
      throw error;
    }
  }

  /** Starts it, or starts it again. Resolves when it serves. */
  async go() {
    const flags = ["--listen", this.server, "--web-listen", this.web, "--ops-listen", "127.0.0.1:0", "--set", `web.pages=${PAGES}`];
    this.#child = spawn(PROGRAM, ["serve", ...flags, "--data-dir", this.#folder, "--log-format", "json"], { stdio: ["ignore", "ignore", "pipe"] });
    const lines = [];
    for await (const line of createInterface(this.#child.stderr)) {
      lines.push(line);
      const said = JSON.parse(line);
      if (said.message !== "serving") continue;
      [this.server, this.web] = [said.address, said.web_address];
      this.#child.stderr.resume();
      return;
    }
    throw new Error(`the hub ended before it served: ${lines.join("\n")}`);
  }

  /** Ends it without a word to anybody. Resolves when it is gone. */
  async kill(signal = "SIGKILL") {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const gone = new Promise((exited) => this.#child.once("exit", exited));
    this.#child.kill(signal);
    await gone;
  }

  /** Runs a command of the program against it, and gives what it prints. */
  async command(...words) {
    return (await run(PROGRAM, [...words, "--server", this.server])).stdout;
  }

  /** Publishes these texts to a topic, in order. */
  async publish(topic, texts) {
    const body = JSON.stringify({ events: texts.map((text) => ({ topic, text })) });
    const answer = await fetch(`http://${this.web}/v1/publish`, { method: "POST", headers: { "content-type": "application/json" }, body });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  }

  /** The address of a page. */
  page(path) {
    return `http://${this.web}/${path}`;
  }

  /** What a stream has of these topics, from the earliest to the latest. */
  async events(stream, filter) {
    const all = [];
    for (let cursor = ""; ; ) {
      const asked = new URLSearchParams({ stream, filter, wait: "0", ...(cursor ? { cursor } : { start: "earliest" }) });
      const answer = await fetch(`http://${this.web}/v1/poll?${asked}`);
      if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
      const page = await answer.json();
      all.push(...(page.events ?? []));
      cursor = page.cursor;
      if (page.caughtUp) return all;
    }
  }

  async end() {
    await this.kill();
    rmSync(this.#folder, { recursive: true });
  }
}

/** The board while prices come faster than anybody can draw. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { NARROW, inspect, isLive, isWell, launch, shoot, until, visit } from "./browser.mjs";
import { Hub, ROOT } from "./hub.mjs";

const run = promisify(execFile);
const PYTHON = join(ROOT, ".tools/venv/bin/python");
const ROWS = 560;
let hub, browser;

before(async () => {
  hub = await Hub.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await hub?.end();
});

const tick = (...flags) => run(PYTHON, [join(ROOT, "examples/ticker/ticker.py"), "--server", hub.server, ...flags]);
const number = async (page, id) => Number((await page.locator(id).textContent()).replace(/\D/g, ""));

/** The last price of each share in the file that the ticker sends. */
async function lastPrices() {
  const script = "import importlib.util; print(importlib.util.find_spec('vega_datasets').origin)";
  const folder = join((await run(PYTHON, ["-c", script])).stdout.trim(), "..");
  const rows = readFileSync(join(folder, "_data/stocks.csv"), "utf8").trim().split(/\r?\n/).slice(1);
  return Object.fromEntries(rows.map((row) => row.split(",")).map(([symbol, , price]) => [symbol, Number(price).toFixed(2)]));
}

const pricesOn = (page) => page.$$eval("#rows tr", (rows) => Object.fromEntries(rows.map((row) => [row.dataset.symbol, row.querySelector(".price").textContent])));

/** Holds all frames of a page back until `release` is called in it, as if it had too much to draw. */
const hold = (page) =>
  page.evaluate(() => {
    const [frames, ask] = [[], window.requestAnimationFrame];
    window.requestAnimationFrame = (draw) => frames.push(draw);
    window.release = () => {
      window.requestAnimationFrame = ask;
      for (const draw of frames) ask(draw);
    };
  });
const missed = (page) => page.locator("#missed").textContent();
const told = async (page) => (await number(page, "#drawn")) + (await number(page, "#skipped"));
/** What is published before the hub has heard of a live subscription is not for it. */
const areSubscribed = (count) => until("the pages are subscribed", async () => new RegExp(`^subscriptions +${count}$`, "m").test(await hub.command("hub")));

test("a burst makes the board skip prices, and never late", async () => {
  const wide = await visit(browser, hub.page("board/index.html"));
  const narrow = await visit(browser, hub.page("board/index.html"), { size: NARROW, scheme: "dark" });
  const pages = [wide, narrow];
  await Promise.all(pages.map((page) => isLive(page)));
  await areSubscribed(2);
  // Month by month first, as a person would want to see it.
  await tick("--by-date", "--rate", "100");
  for (const page of pages) await until("all of it is there", async () => (await told(page)) === ROWS);
  await inspect(wide, "board");
  await inspect(narrow, "board-dark");

  // How much a page skips that draws as fast as it can is up to the machine; one that is busy skips nearly everything.
  const [repeat, sent] = [60, ROWS * 61];
  const before = await number(narrow, "#drawn");
  await hold(narrow);
  await tick("--repeat", String(repeat));
  await narrow.evaluate(() => release());
  const expected = await lastPrices();
  for (const page of pages) {
    await until("every price is drawn or counted as skipped", async () => (await told(page)) === sent);
    assert.deepEqual(await pricesOn(page), expected);
    assert.equal(await missed(page), "never");
  }
  const drawn = (await number(narrow, "#drawn")) - before;
  assert.ok(drawn < (ROWS * repeat) / 10, `a busy page drew ${drawn}`);
  await inspect(wide, "board-burst");

  await hub.kill();
  await wide.locator('#badge:not([data-state="up"])').waitFor();
  await shoot(wide, "board-away");
  await hub.go();
  await isLive(wide, 1);
  await areSubscribed(2);
  await until("the page says that it was away", async () => (await missed(wide)) === "once");
  await tick();
  await until("the prices after the restart are there", async () => (await told(wide)) === sent + ROWS);
  await isWell(wide);
});

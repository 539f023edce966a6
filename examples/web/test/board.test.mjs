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

test("a burst makes the board skip prices, and never late", async () => {
  const wide = await visit(browser, hub.page("board/index.html"));
  const narrow = await visit(browser, hub.page("board/index.html"), { size: NARROW, scheme: "dark" });
  await Promise.all([isLive(wide), isLive(narrow)]);
  // Month by month first, as a person would want to see it.
  await tick("--by-date", "--rate", "100");
  for (const page of [wide, narrow]) {
    await until("all of it is there", async () => (await number(page, "#drawn")) + (await number(page, "#skipped")) === ROWS);
  }
  await inspect(wide, "board");
  await inspect(narrow, "board-dark");

  const repeat = 60;
  await tick("--repeat", String(repeat));
  const expected = await lastPrices();
  const sent = ROWS * (1 + repeat);
  for (const page of [wide, narrow]) {
    await until("every price is drawn or counted as skipped", async () => (await number(page, "#drawn")) + (await number(page, "#skipped")) === sent);
    assert.deepEqual(await pricesOn(page), expected);
    assert.ok((await number(page, "#skipped")) > sent / 2, "little was skipped: was there a burst?");
    assert.equal(await page.locator("#missed").textContent(), "never");
  }
  await inspect(wide, "board-burst");

  await hub.kill();
  await wide.locator('#badge:not([data-state="up"])').waitFor();
  await shoot(wide, "board-away");
  await hub.go();
  await isLive(wide, 1);
  assert.equal(await wide.locator("#missed").textContent(), "once");
  await tick();
  await until("the prices after the restart are there", async () => (await number(wide, "#drawn")) + (await number(wide, "#skipped")) === sent + ROWS);
  await isWell(wide);
});

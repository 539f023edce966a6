/**
 * A real browser, as the tests use it. Whatever a page complains of, a broken Content-Security-Policy and an error that
 * nobody caught among it, fails the test that opened it; so does what axe finds, and a page that is wider than its window.
 */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium, firefox } from "playwright-core";
import { ROOT } from "./hub.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SHOTS = process.env.SCREENSHOTS ?? join(ROOT, "target/screenshots");
/** Longer than anything takes, on a machine that is busy too. */
const PATIENCE = 60_000;
export const WIDE = { width: 1280, height: 800 };
export const NARROW = { width: 390, height: 844 };

/** A hub that is away is what some tests are about. The browsers and the client say so, as they should. */
const AWAY = /WebSocket connection to|net::ERR_|status of 426|can’t establish a connection|was interrupted|switchyard: waiting/;

/** The sandbox of Chromium needs what root has not got in a container. */
const flags = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
if (process.getuid?.() === 0) flags.push("--no-sandbox");

export async function launch() {
  mkdirSync(SHOTS, { recursive: true });
  return chromium.launch({ executablePath: join(ROOT, ".tools/bin/chromium"), args: flags });
}

/** Firefox as it is distributed, by the protocol that it shares with other browsers. */
export function launchFirefox() {
  return firefox.launch({ channel: "moz-firefox", executablePath: join(ROOT, ".tools/bin/firefox") });
}

/** A page of a visitor of their own: nothing is kept from one to the next. `name` is what the pages call them. */
export async function visit(browser, address, { name, size = WIDE, scheme = "light" } = {}) {
  const phone = size.width < 500 && browser.browserType() === chromium ? { hasTouch: true, isMobile: true } : {};
  const context = await browser.newContext({ viewport: size, colorScheme: scheme, locale: "en-GB", ...phone });
  // Also runs in the blank page before, which has no storage.
  if (name) await context.addInitScript((given) => location.protocol === "http:" && localStorage.setItem("name", given), name);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.complaints = [];
  const complain = (text) => AWAY.test(text) || page.complaints.push(text);
  // Firefox tells what is wrong with a connection as an error of the page.
  page.on("pageerror", (error) => complain(`${error}\n${error.stack ?? ""}`));
  page.on("console", (said) => ["error", "warning"].includes(said.type()) && complain(said.text()));
  await page.goto(address);
  return page;
}

/** What every page must be, whatever it shows. */
export async function isWell(page) {
  assert.deepEqual(page.complaints, []);
  const surplus = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(surplus, 0, "the page is wider than its window");
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`), []);
}

/** A picture of a page for people to look at. */
export function shoot(page, name) {
  const { width } = page.viewportSize();
  return page.screenshot({ path: join(SHOTS, `${name}-${width}.png`) });
}

/** What a page must be at both widths, and a picture of each. */
export async function inspect(page, name) {
  const before = page.viewportSize();
  for (const size of [WIDE, NARROW]) {
    await page.setViewportSize(size);
    await isWell(page);
    await shoot(page, name);
  }
  await page.setViewportSize(before);
}

/** Waits until the connection of a page is up, having come back this often. */
export async function isLive(page, back = 0) {
  await page.locator(`#badge[data-state="up"][data-back="${back}"]`).waitFor();
}

/** Asks again until it is so. */
export async function until(what, holds) {
  const start = Date.now();
  let last;
  while (!(last = await holds())) {
    assert.ok(Date.now() - start < PATIENCE, `${what} is not so after ${PATIENCE} ms`);
    await new Promise((later) => setTimeout(later, 25));
  }
  return last;
}

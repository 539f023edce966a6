/** Two pages that draw on one sheet at once. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { NARROW, inspect, isLive, isWell, launch, until, visit } from "./browser.mjs";
import { Hub } from "./hub.mjs";

let hub, browser;

before(async () => {
  hub = await Hub.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await hub?.end();
});

/** Draws a line from one point of the sheet to another; both in parts of its size. */
async function draw(page, [x1, y1], [x2, y2], steps = 12) {
  const box = await page.locator("#pens").boundingBox();
  const [x, y] = [(part) => box.x + part * box.width, (part) => box.y + part * box.height];
  await page.mouse.move(x(x1), y(y1));
  await page.mouse.down();
  for (let step = 1; step <= steps; step += 1) {
    const part = step / steps;
    await page.mouse.move(x(x1 + (x2 - x1) * part), y(y1 + (y2 - y1) * part + 0.03 * Math.sin(part * 9)));
  }
  await page.mouse.up();
}

const choose = (page, label) => page.getByLabel(label).check({ force: true });
/** The picture once all that was asked for is drawn: what is redrawn waits for the next frame. */
const ink = (page) =>
  page.$eval("#ink", (canvas) => new Promise((told) => requestAnimationFrame(() => requestAnimationFrame(() => told(canvas.toDataURL())))));
const facts = (page) => page.locator("#facts").textContent();
const strokes = async (page, count) => until(`${count} strokes`, async () => (await facts(page)).startsWith(`${count} stroke`));

test("two pages that draw at once show the same, through a hub that is killed", async () => {
  const ada = await visit(browser, hub.page("draw/index.html"), { name: "Ada" });
  const grace = await visit(browser, hub.page("draw/index.html"), { name: "Grace" });
  await Promise.all([isLive(ada), isLive(grace)]);
  await choose(ada, "Red");
  await choose(ada, "Thick");
  await choose(grace, "Blue");
  await choose(grace, "Thick");
  // Across each other, so that it matters which is on top.
  const many = async (page, line) => {
    for (let n = 0; n < 8; n += 1) await draw(page, ...line(0.1 + n / 10));
  };
  await Promise.all([many(ada, (at) => [[at, 0.1], [at, 0.9]]), many(grace, (at) => [[0.1, at], [0.9, at]])]);
  await Promise.all([strokes(ada, 16), strokes(grace, 16)]);
  assert.equal(await ink(ada), await ink(grace));
  await until("both know of each other", async () => /with Grace/.test(await facts(ada)));
  await inspect(ada, "draw");

  // What is drawn while the hub is away comes when it is back.
  await hub.kill();
  await ada.locator('#badge:not([data-state="up"])').waitFor();
  await choose(ada, "Green");
  await draw(ada, [0.1, 0.1], [0.9, 0.9]);
  await hub.go();
  await Promise.all([isLive(ada, 1), isLive(grace, 1)]);
  await Promise.all([strokes(ada, 17), strokes(grace, 17)]);
  assert.equal(await ink(ada), await ink(grace));

  // Everybody takes back what they drew themselves.
  await ada.getByRole("button", { name: "Undo" }).click();
  await grace.getByRole("button", { name: "Undo" }).click();
  await Promise.all([strokes(ada, 15), strokes(grace, 15)]);
  assert.equal(await ink(ada), await ink(grace));
  const stored = await hub.events("draw", "draw.strokes.main.>");
  assert.equal(stored.filter(({ event }) => event.type === "draw.undo").length, 2);

  const late = await visit(browser, hub.page("draw/index.html"), { name: "Linus" });
  await strokes(late, 15);
  assert.equal(await ink(late), await ink(ada));

  await grace.getByRole("button", { name: "Clear" }).click();
  await grace.getByRole("dialog").getByRole("button", { name: "Clear" }).click();
  await Promise.all([ada, grace, late].map((page) => strokes(page, 0)));
  for (const page of [ada, grace, late]) await isWell(page);
});

test("whoever has no pointer draws with keys, on a phone or not", async () => {
  const ada = await visit(browser, hub.page("draw/index.html"), { name: "Ada", size: NARROW, scheme: "dark" });
  await isLive(ada);
  await ada.locator("#pens").focus();
  for (const key of ["ArrowUp", "Space", "ArrowRight", "ArrowRight", "ArrowDown", "Space"]) await ada.keyboard.press(key);
  await strokes(ada, 1);
  const [{ event }] = (await hub.events("draw", "draw.strokes.main.>")).filter((one) => one.event.type === "draw.stroke").slice(-1);
  assert.deepEqual(JSON.parse(event.text).p, [2000, 1440, 60, 0, 60, 0, 0, 60]);
  await draw(ada, [0.2, 0.3], [0.8, 0.3]);
  await strokes(ada, 2);
  await inspect(ada, "draw-dark");
});

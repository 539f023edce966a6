/** A page with nothing but EventSource, and a hub that is killed under it. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { NARROW, inspect, isLive, launch, shoot, until, visit } from "./browser.mjs";
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

const sequences = (page) => page.$$eval("#events tr", (rows) => rows.map((row) => Number(row.dataset.sequence)).reverse());

test("EventSource goes on where it was after the hub was killed", async () => {
  await hub.command("stream", "create", "trains", "trains.>");
  const publish = (from, to) => hub.publish("trains.west", Array.from({ length: to - from + 1 }, (_, n) => `train ${from + n}`));
  await publish(1, 30);
  const page = await visit(browser, hub.page("log/index.html"), { size: NARROW });
  const cursors = [];
  page.on("request", async (request) => {
    if (request.url().includes("/v1/events")) cursors.push((await request.allHeaders())["last-event-id"]);
  });
  await page.getByLabel("Stream").fill("trains");
  await page.getByRole("button", { name: "Follow" }).click();
  await isLive(page);
  await until("what there was is there", async () => (await sequences(page)).length === 30);
  await publish(31, 40);
  await until("what comes is there", async () => (await sequences(page)).length === 40);
  const last = await until("the cursor is that of the last", async () => {
    const shown = await page.locator("#last").textContent();
    return /^c1\.trains\.\d+\.40$/.test(shown) && shown;
  });

  await hub.kill();
  await page.locator('#badge[data-state="waiting"]').waitFor();
  await hub.go();
  await publish(41, 60);
  await isLive(page, 1);
  await until("what was missed is there", async () => (await sequences(page)).length === 60);
  assert.deepEqual(await sequences(page), Array.from({ length: 60 }, (_, n) => n + 1));
  // By the browser alone, in the header that is made for it.
  assert.equal(cursors[0], undefined);
  await until("the browser has said where it was", () => cursors.at(-1) === last);
  await inspect(page, "log");

  const wide = await visit(browser, hub.page("log/index.html?stream=trains"), { scheme: "dark" });
  await until("a page that comes later has all of it", async () => (await sequences(wide)).length === 60);
  await inspect(wide, "log-dark");
});

test("a stream that is not there is said to be so", async () => {
  const page = await visit(browser, hub.page("log/index.html?stream=nowhere"));
  await page.locator("#notice").getByText(/nowhere|no stream|not found/i).waitFor();
  await shoot(page, "log-refused");
});

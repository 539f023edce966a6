/** What depends most on the browser, once more in Firefox: WebSocket and EventSource when the hub is killed. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isLive, isWell, launchFirefox, until, visit } from "./browser.mjs";
import { Hub } from "./hub.mjs";

let hub, browser;

before(async () => {
  hub = await Hub.start();
  browser = await launchFirefox();
});
after(async () => {
  await browser?.close();
  await hub?.end();
});

test("Firefox goes on where it was, by WebSocket and by EventSource", async () => {
  const chat = await visit(browser, hub.page("chat/index.html"), { name: "Ada" });
  const log = await visit(browser, hub.page("log/index.html?stream=chat&filter=chat.messages.>"));
  await Promise.all([isLive(chat), isLive(log)]);
  const say = async (text) => {
    await chat.fill("#text", text);
    await chat.press("#text", "Enter");
  };
  const has = (count) => async () => {
    const texts = await log.$$eval("#events .payload", (all) => all.map((one) => one.textContent).reverse());
    const said = await chat.$$eval('.message[data-state="stored"] .text', (all) => all.map((one) => one.textContent));
    return texts.length === count && said.length === count && [texts, said];
  };
  for (let n = 1; n <= 5; n += 1) await say(`before ${n}`);
  await until("both have what was said", has(5));
  await hub.kill();
  await chat.locator('#badge:not([data-state="up"])').waitFor();
  await say("meanwhile");
  await hub.go();
  await Promise.all([isLive(chat, 1), isLive(log, 1)]);
  await say("after");
  const [texts, said] = await until("both have all", has(7));
  const all = [1, 2, 3, 4, 5].map((n) => `before ${n}`).concat("meanwhile", "after");
  assert.deepEqual([texts, said], [all, all]);
  for (const page of [chat, log]) await isWell(page);
});

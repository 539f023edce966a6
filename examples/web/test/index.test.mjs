/** The list of the pages, and that each of them opens from it. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { inspect, launch, visit } from "./browser.mjs";
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

test("every page is in the list and leads back to it", async () => {
  const page = await visit(browser, hub.page("index.html"), { name: "Ada" });
  await inspect(page, "index");
  const names = await page.locator(".cards h2").allTextContents();
  assert.deepEqual(names, ["Chat", "Board", "Draw", "Log"]);
  for (const name of names) {
    await page.getByRole("link", { name }).click();
    await page.locator(`nav a[aria-current="page"]`, { hasText: name }).waitFor();
    await page.getByRole("link", { name: "Switchyard: all examples" }).click();
    await page.getByRole("heading", { level: 1, name: /Pages that talk/ }).waitFor();
  }
  assert.deepEqual(page.complaints, []);
});

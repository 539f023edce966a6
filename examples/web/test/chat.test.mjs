/** The chat between two browsers and a hub that is killed. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { NARROW, inspect, isLive, isWell, launch, shoot, until, visit } from "./browser.mjs";
import { Hub } from "./hub.mjs";
import { landscape, noise } from "./pictures.mjs";

const TTL_S = 8;
const CHAT = `chat/index.html?ttl=${TTL_S}`;
let hub, browser;

before(async () => {
  hub = await Hub.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await hub?.end();
});

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

/** The messages of a page, in the order in which it shows them. */
function shown(page) {
  return page.$$eval(".message", (all) =>
    all.map((one) => {
      const { topic, sequence, state } = one.dataset;
      return { topic, sequence: Number(sequence), state, text: one.querySelector(".text").textContent };
    }),
  );
}

const people = (page) => page.$$eval("#people li", (all) => all.map((one) => one.textContent.trim().replace(/^\S+\s+/, "")));

test("what two people say survives a hub that is killed, once and in order", async () => {
  const ada = await visit(browser, hub.page(CHAT), { name: "Ada" });
  const grace = await visit(browser, hub.page(CHAT), { name: "Grace", size: NARROW, scheme: "dark" });
  await Promise.all([isLive(ada), isLive(grace)]);

  await say(ada, "Morning! Is the early train in?");
  await grace.getByText("Is the early train in?").waitFor();
  await say(grace, "On time, for once.");
  await ada.getByText("On time, for once.").waitFor();
  await ada.setInputFiles("#picture", { name: "view.png", mimeType: "image/png", buffer: landscape(640, 400) });
  await ada.locator("#attached:not([hidden])").waitFor();
  await say(ada, "Platform 3, looking west");
  await grace.locator(".message img[alt*='looking west']").waitFor();
  const talk = [
    [grace, "Lovely. I take the 8:12 then, and keep you a seat."],
    [grace, "Coffee?"],
    [ada, "Please. Black, and one of those buns with far too much sugar on them, if there are any left by the time you get to the front of the queue."],
  ];
  for (const [page, text] of talk) {
    await say(page, text);
    await (page === ada ? grace : ada).getByText(text).waitFor();
  }
  await inspect(ada, "chat");
  await inspect(grace, "chat-dark");
  const before = (await shown(ada)).length;

  // Both talk while the hub dies and comes back. What it does not answer waits in the pages, and is sent again.
  const killed = (async () => {
    await until("some of it is stored", async () => (await shown(ada)).filter(({ state }) => state === "stored").length > before + 4);
    await hub.kill();
    await ada.locator('#badge:not([data-state="up"])').waitFor();
  })();
  const count = async (page, who) => {
    for (let n = 1; n <= 20; n += 1) {
      if (n === 11) await killed;
      await say(page, `${who} ${n}`);
    }
  };
  await Promise.all([killed, count(ada, "a"), count(grace, "g")]);
  await shoot(ada, "chat-away");
  await hub.go();
  await Promise.all([isLive(ada, 1), isLive(grace, 1)]);

  const settled = async (page) => {
    const all = await shown(page);
    return all.length === before + 40 && all.every(({ state }) => state === "stored") && all;
  };
  const [ofAda, ofGrace] = await Promise.all([ada, grace].map((page) => until("everything is stored", () => settled(page))));
  assert.deepEqual(ofAda, ofGrace);
  const stored = await hub.events("chat", "chat.messages.lobby.>");
  assert.deepEqual(ofAda.map(({ topic, sequence }) => [topic, sequence]), stored.map(({ event, sequence }) => [event.topic, Number(sequence)]));
  for (const who of ["a", "g"]) {
    const own = ofAda.map(({ text }) => text).filter((text) => text.startsWith(`${who} `));
    assert.deepEqual(own, Array.from({ length: 20 }, (_, n) => `${who} ${n + 1}`));
  }

  // Who comes later sees the same.
  const late = await visit(browser, hub.page(CHAT), { name: "Linus" });
  assert.deepEqual(await until("the history is there", async () => (await shown(late)).length === before + 40 && shown(late)), ofAda);

  await inspect(ada, "chat-after");
  await isWell(grace);
  for (const page of [ada, grace, late]) await page.context().close();
});

test("a message that is recalled is gone from the pages and from the stream", async () => {
  const ada = await visit(browser, hub.page(`${CHAT}#room=recall`), { name: "Ada" });
  const grace = await visit(browser, hub.page(`${CHAT}#room=recall`), { name: "Grace" });
  for (const text of ["first", "a secret", "last"]) {
    await say(ada, text);
    await grace.getByText(text, { exact: true }).waitFor();
  }
  const message = ada.locator(".message", { hasText: "a secret" });
  await message.hover();
  await message.getByRole("button", { name: "Recall" }).click();
  await grace.getByText("This message was recalled.").waitFor();
  assert.equal(await grace.getByRole("button", { name: "Recall" }).count(), 0);

  // It stays where it was, for those who come later too.
  const late = await visit(browser, hub.page(`${CHAT}#room=recall`), { name: "Linus" });
  await late.getByText("last", { exact: true }).waitFor();
  await late.getByText("This message was recalled.").waitFor();
  for (const page of [grace, late]) {
    assert.deepEqual((await shown(page)).map(({ text }) => text), ["first", "This message was recalled.", "last"]);
  }
  const stored = await hub.events("chat", "chat.messages.recall.>");
  assert.equal(stored.length, 3);
  assert.ok(!JSON.stringify(stored).includes("secret"));
  await isWell(ada);
  for (const page of [ada, grace, late]) await page.context().close();
});

/** When somebody is no longer shown on a page, by its clock, and how late that page was with its timers meanwhile. */
function gone(page, name) {
  return page.evaluate(async (name) => {
    let [late, before] = [0, Date.now()];
    while ([...document.querySelectorAll("#people li")].some((one) => one.textContent.includes(name))) {
      await new Promise((later) => setTimeout(later, 20));
      late = Math.max(late, Date.now() - before - 20);
      before = Date.now();
    }
    return { at: Date.now(), late };
  }, name);
}

test("who crashes is here no longer than the ttl, and who leaves is gone at once", async () => {
  const ada = await visit(browser, hub.page(`${CHAT}#room=presence`), { name: "Ada" });
  const grace = await visit(browser, hub.page(`${CHAT}#room=presence`), { name: "Grace" });
  // Nobody would wait for this ttl.
  const linus = await visit(browser, hub.page("chat/index.html?ttl=300#room=presence"), { name: "Linus" });
  await until("all are here", async () => (await people(ada)).length === 3);
  assert.deepEqual(await people(ada), ["Ada (you)", "Grace", "Linus"]);
  await linus.goto("about:blank");
  await gone(ada, "Linus");

  await grace.goto("chrome://crash").catch(() => {});
  const crashed = Date.now();
  assert.ok((await people(ada)).includes("Grace"));
  const { at, late } = await gone(ada, "Grace");
  // A page looks twice in a second, and knows the clock of the hub but for the time that an event takes.
  assert.ok(at - crashed <= TTL_S * 1000 + 1000 + late, `gone after ${at - crashed} ms, with timers ${late} ms late`);
  assert.deepEqual(await people(ada), ["Ada (you)"]);
  await until("the stream has forgotten too", async () => (await hub.events("chat-here", "chat.here.presence.>")).every(({ event }) => event.attributes.name === "Ada"));
  for (const page of [ada, grace, linus]) await page.context().close();
});

test("what people write is text, whatever it looks like", async () => {
  const ada = await visit(browser, hub.page(`${CHAT}#room=text`), { name: "<b>Ada</b>" });
  const grace = await visit(browser, hub.page(`${CHAT}#room=text`), { name: "Grace" });
  const texts = ["<img src=x onerror='document.title=1'>", "</p><script>document.title = 1</script>", "{{ 1 + 1 }} &amp; \u202etxet", "x".repeat(8000)];
  for (const text of texts) await say(ada, text);
  await until("all are there", async () => (await shown(grace)).filter(({ state }) => state === "stored").length === 4);
  assert.deepEqual((await shown(grace)).map(({ text }) => text), texts);
  assert.equal(await grace.locator(".message .by b").first().textContent(), "<b>Ada</b>");
  assert.match(await grace.title(), /Chat/);
  await isWell(grace);
  for (const page of [ada, grace]) await page.context().close();
});

test("a picture that is too large for an event is made smaller, and rooms are found by others", async () => {
  const ada = await visit(browser, hub.page(CHAT), { name: "Ada" });
  const grace = await visit(browser, hub.page(CHAT), { name: "Grace", size: NARROW });
  await ada.getByRole("button", { name: "New room" }).click();
  await ada.getByLabel("Name").fill("Lost property");
  await ada.getByRole("button", { name: "Open" }).click();
  await ada.getByRole("heading", { name: "Lost property" }).waitFor();
  await grace.getByRole("link", { name: "Lost property" }).click();
  const large = noise(1000, 800);
  assert.ok(large.length > 2_000_000);
  await ada.setInputFiles("#picture", { name: "large.png", mimeType: "image/png", buffer: large });
  await ada.locator("#attached:not([hidden])").waitFor();
  await ada.getByRole("button", { name: "Send", exact: true }).click();
  const picture = grace.locator(".message img");
  await picture.waitFor();
  await until("it is loaded", () => picture.evaluate((image) => image.complete && image.naturalWidth > 300));
  const [{ event }] = await hub.events("chat", "chat.messages.lost-property.>");
  assert.equal(event.contentType, "image/jpeg");
  assert.ok(Buffer.from(event.data, "base64").length > 300_000);
  // Another room was visited before: what is said there meanwhile is counted.
  await ada.getByRole("link", { name: /Lobby/ }).click();
  await say(ada, "Has anybody lost a picture?");
  await grace.locator('[data-room="lobby"] .count').getByText("1 new").waitFor();
  await isWell(grace);
  await shoot(grace, "chat-rooms");
  for (const page of [ada, grace]) await page.context().close();
});

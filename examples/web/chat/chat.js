/**
 * A chat without a server of its own: the page talks to the hub, and the hub keeps what was said.
 *
 * - Messages are events of the stream `chat`, which keeps one event per topic. Opening a room is a subscription to its
 *   part of that stream; after a lost connection the client resumes it, so nothing is missing and nothing comes twice.
 * - Who is here are events of the stream `chat-here`, in memory and with a ttl.
 */

import { copy, fill, find, randomToken } from "../parts/dom.js";
import { open, follow, whenUp } from "../parts/hub.js";
import { askName, hueOf, me } from "../parts/me.js";
import { tellProblem } from "../parts/badge.js";
import { attachments } from "./attachments.js";
import { History } from "./history.js";
import { Messages } from "./messages.js";
import { People } from "./people.js";
import { Rooms } from "./rooms.js";

/** How long the others see somebody who has crashed. Browsers let a hidden page do something once a minute only. */
const TTL_S = Math.min(Math.max(Number(new URLSearchParams(location.search).get("ttl")) || 75, 3), 300);
const LONGEST_TEXT = 8000;

const hub = open("web-chat");
const people = new People();
const rooms = new Rooms(openRoom);
const messages = new Messages({ recall, again });
const visited = new Map(); // room -> { history, caughtUp }
const unsent = new Map(); // topic -> event, until the hub has it
const attached = attachments();
let at = ""; // the room that this page says it is in

// The rooms there are.
follow(hub.subscribe({ stream: "chat", filters: ["chat.rooms.*"], from: "lastPerTopic", onGap: "earliest" }), {
  events: (events) => events.forEach((event) => rooms.take(event)),
});

// Who is where.
follow(hub.subscribe({ stream: "chat-here", filters: ["chat.here.>"], from: "lastPerTopic", onGap: "earliest" }), {
  events(events) {
    for (const event of events) people.take(event, Date.now());
    drawPeople();
  },
  gap(gap) {
    if (gap.reason === "epoch") people.forget();
  },
});
setInterval(() => people.sweep(Date.now()) && drawPeople(), 500);

rooms.draw((room) => people.of(room).length);
openRoom(rooms.open);
drawPeople();

await askName();
announce("chat.here");
whenUp(hub, () => announce("chat.here"));
setInterval(() => announce("chat.here"), (TTL_S * 1000) / 3);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && announce("chat.here"));
addEventListener("pagehide", () => announce("chat.left"));

/** Shows a room, and reads it from the stream if this page has not yet. A room that was visited stays up to date. */
function openRoom(room) {
  leaveBehind(room);
  find("#room-title").textContent = rooms.title(room);
  document.title = `${rooms.title(room)} · Chat · Switchyard`;
  const known = visited.get(room) ?? enter(room);
  messages.open(known.history, known.caughtUp);
  drawPeople();
}

function enter(room) {
  const known = { history: new History(), caughtUp: false };
  visited.set(room, known);
  follow(hub.subscribe({ stream: "chat", filters: [`chat.messages.${room}.>`], from: "earliest", onGap: "earliest" }), {
    events(events) {
      const changed = events.map((event) => known.history.take(event)).filter(Boolean);
      if (room === rooms.open) messages.show(changed);
      else if (known.caughtUp) rooms.addUnread(room, changed.filter((entry) => entry.state === "stored").length);
    },
    caughtUp() {
      known.caughtUp = true;
      if (room === rooms.open) messages.caughtUp();
    },
    gap(gap) {
      // Another stream of that name: its sequences have nothing to do with those before.
      if (gap.reason !== "epoch") return;
      known.history = new History();
      if (room === rooms.open) messages.open(known.history, known.caughtUp);
    },
  });
  return known;
}

/** Who goes to another room is no longer here. */
function leaveBehind(room) {
  if (at && at !== room) {
    announce("chat.left");
    at = room;
    announce("chat.here");
  }
  at = room;
}

function announce(type) {
  if (!me.name) return;
  const ttlMs = type === "chat.here" ? TTL_S * 1000 : 1000;
  const event = { topic: `chat.here.${at}.${me.user}.${me.tab}`, type, attributes: { name: me.name }, ttlMs };
  // Only while there is a hub: what is said of who is here is worth nothing later.
  hub.publish(event, { timeoutMs: 2000 }).catch(() => {});
}

async function say(event) {
  const known = visited.get(rooms.open);
  known.history.send(entryOf(event));
  messages.show([known.history.entries.at(-1)]);
  await publish(event, known);
}

async function publish(event, known) {
  unsent.set(event.topic, event);
  try {
    await hub.publish(event);
    unsent.delete(event.topic);
  } catch (error) {
    const problem = error.kind === "unknown" ? "Nobody knows whether this was sent." : `Not sent: ${error.text}`;
    const entry = known.history.fail(event.topic, problem);
    if (entry && visited.get(rooms.open) === known) messages.show([entry]);
  }
}

/** The same event with the same id: if the stream has it after all, it is not stored twice. */
function again(entry) {
  const known = visited.get(rooms.open);
  messages.show([known.history.retry(entry.topic)]);
  publish(unsent.get(entry.topic), known);
}

function recall(entry) {
  const event = { topic: entry.topic, type: "chat.recall", attributes: { name: me.name, sent: String(entry.place) } };
  hub.publish(event).catch((error) => tellProblem(`The message could not be recalled: ${error.message}`));
}

function entryOf({ topic, text, attributes, picture }) {
  return { topic, user: me.user, name: me.name, time: new Date(), text: text ?? attributes.caption ?? "", picture: picture ?? null };
}

find("#composer").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const field = find("#text");
  const text = field.value.trim().slice(0, LONGEST_TEXT);
  const picture = attached.take();
  if (!text && !picture) return;
  const id = randomToken();
  const topic = `chat.messages.${rooms.open}.${me.user}.${id}`;
  const event = { id, topic, type: "chat.message", source: `web-chat/${me.user}`, attributes: { name: me.name } };
  if (picture) {
    const { bytes, type, width, height } = picture;
    Object.assign(event.attributes, { caption: text, width: String(width), height: String(height) });
    say({ ...event, contentType: type, data: bytes, picture });
  } else {
    say({ ...event, contentType: "text/plain", text });
  }
  field.value = "";
  field.focus();
});

find("#text").addEventListener("keydown", (key) => {
  if (key.key !== "Enter" || key.shiftKey || key.isComposing) return;
  key.preventDefault();
  find("#composer").requestSubmit();
});

find("#rename").addEventListener("click", async () => {
  await askName(true);
  announce("chat.here");
});

find("#new-room").addEventListener("click", () => {
  const dialog = copy("room-dialog");
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    const title = find("input", dialog).value.trim();
    const wanted = dialog.returnValue === "ok" && title;
    dialog.remove();
    if (!wanted) return;
    const { room, event } = rooms.named(title);
    hub.publish(event).catch((error) => tellProblem(`The room could not be opened: ${error.message}`));
    rooms.take(event);
    location.hash = `room=${room}`;
  });
  dialog.showModal();
});

function drawPeople() {
  const here = people.of(rooms.open);
  find("#people").replaceChildren(
    ...here.map(({ user, name }) => {
      const element = fill(copy("person"), { face: (name || "?").slice(0, 1).toUpperCase(), name: user === me.user ? `${name} (you)` : name });
      element.dataset.user = user;
      element.style.setProperty("--hue", hueOf(user));
      return element;
    }),
  );
  find("#room-facts").textContent = `${here.length} here`;
  rooms.draw();
}

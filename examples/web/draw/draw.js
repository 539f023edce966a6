/**
 * A sheet that everybody draws on at once.
 *
 * - A stroke that is done is an event of the stream `draw`, which has all of them in one order: every page shows the same.
 * - A stroke on its way, and where the pens are, are live events that nobody keeps: who misses one misses nothing that
 *   lasts.
 */

import { copy, find, randomToken } from "../parts/dom.js";
import { follow, open } from "../parts/hub.js";
import { askName, me } from "../parts/me.js";
import { tellProblem } from "../parts/badge.js";
import { LONGEST, SHEET, Strokes, read, write } from "./strokes.js";
import { Surface } from "./surface.js";

const ROOM = "main";
/** How often a pen says where it is, and how long it is shown after it said so last. */
const EVERY_MS = 50;
const GONE_MS = 5000;
const KEY_STEP = 60;

const hub = open("web-draw");
let strokes = new Strokes();
const pending = new Map(); // topic -> a stroke of mine that the stream does not have yet
const others = new Map(); // tab -> { x, y, name, user, stroke, until }
let mine = null; // the stroke that I am drawing

const surface = new Surface(
  () => strokes.all(),
  () => ({
    strokes: [...pending.values(), ...[...others.values()].map((other) => other.stroke).filter(Boolean), ...(mine ? [mine] : [])],
    cursors: [...others.values()],
  }),
);

follow(hub.subscribe({ stream: "draw", filters: [`draw.strokes.${ROOM}.>`, `draw.cleared.${ROOM}`], from: "earliest", onGap: "earliest" }), {
  events(events) {
    for (const event of events) settle(event);
    surface.movePens();
    showFacts();
  },
  gap(gap) {
    // Another stream of that name: its sequences have nothing to do with those before.
    if (gap.reason !== "epoch") return;
    strokes = new Strokes();
    surface.redraw();
  },
});

follow(hub.subscribe({ filters: [`draw.pens.${ROOM}.*.*`], overflow: "conflate", window: 64 }), {
  events(events) {
    for (const event of events) moveOther(event);
    surface.movePens();
    showFacts();
  },
});

setInterval(() => {
  const now = Date.now();
  for (const [tab, other] of others) if (other.until < now) others.delete(tab);
  surface.movePens();
  showFacts();
}, 1000);

await askName();

/** An event of the stream: a stroke is no longer on its way, or something else changed. */
function settle(event) {
  const { topic } = event;
  pending.delete(topic);
  for (const other of others.values()) if (other.stroke?.topic === topic) other.stroke = null;
  const { added, redraw } = strokes.take(event);
  if (redraw) surface.redraw();
  else if (added) surface.add(added);
}

function moveOther({ topic, text, type, attributes }) {
  const [, , , user, tab] = topic.split(".");
  if (tab === me.tab || others.size > 50) return;
  const [x, y] = (attributes.at ?? "").split(",").map(Number);
  if (!(x >= 0 && x <= SHEET.width && y >= 0 && y <= SHEET.height)) return;
  const shape = read({ type, text });
  // What comes by two ways may come in either order.
  const stroke = shape && !strokes.has(attributes.stroke) ? { ...shape, topic: attributes.stroke } : null;
  others.set(tab, { x, y, user, name: (attributes.name ?? "").slice(0, 40), stroke, until: Date.now() + GONE_MS });
}

let toldAt = 0;
function tellPen([x, y]) {
  if (Date.now() - toldAt < EVERY_MS) return;
  toldAt = Date.now();
  const event = { topic: `draw.pens.${ROOM}.${me.user}.${me.tab}`, attributes: { at: `${x},${y}`, name: me.name } };
  if (mine) Object.assign(event, { type: "draw.stroke", text: write(mine), attributes: { ...event.attributes, stroke: mine.topic } });
  hub.publish(event, { timeoutMs: 1000 }).catch(() => {});
}

// Drawing: by pointer, or by keys.

function begin(place) {
  const chosen = new FormData(find("#tools"));
  const topic = `draw.strokes.${ROOM}.${me.user}.${randomToken()}`;
  mine = { topic, colour: Number(chosen.get("colour")), width: Number(chosen.get("width")), points: [...place] };
}

function go(place) {
  if (mine.points.at(-2) === place[0] && mine.points.at(-1) === place[1]) return;
  mine.points.push(...place);
  if (mine.points.length < LONGEST) return;
  end();
  begin(place);
}

async function end() {
  if (!mine) return;
  const stroke = mine;
  mine = null;
  pending.set(stroke.topic, stroke);
  surface.movePens();
  const id = stroke.topic.split(".").at(-1);
  const event = { id, topic: stroke.topic, source: `web-draw/${me.user}`, type: "draw.stroke", contentType: "application/json", text: write(stroke) };
  try {
    await hub.publish(event);
  } catch (error) {
    pending.delete(stroke.topic);
    surface.movePens();
    tellProblem(`A stroke was not drawn for the others: ${error.message}`);
  }
}

const sheet = find("#pens");
sheet.addEventListener("pointerdown", (pointer) => {
  if (!pointer.isPrimary || pointer.button > 0) return;
  sheet.setPointerCapture(pointer.pointerId);
  begin(surface.place(pointer));
  surface.movePens();
});
sheet.addEventListener("pointermove", (pointer) => {
  if (!pointer.isPrimary) return;
  if (mine) for (const step of pointer.getCoalescedEvents?.() ?? [pointer]) go(surface.place(step));
  tellPen(surface.place(pointer));
  surface.movePens();
});
for (const kind of ["pointerup", "pointercancel"]) sheet.addEventListener(kind, end);

let hand = [SHEET.width / 2, SHEET.height / 2];
sheet.addEventListener("keydown", (key) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key.key];
  if (key.key === " ") mine ? end() : begin(hand);
  else if (step) {
    hand = hand.map((at, axis) => Math.min(Math.max(at + step[axis] * KEY_STEP, 0), axis ? SHEET.height : SHEET.width));
    if (mine) go(hand);
    tellPen(hand);
  } else return;
  key.preventDefault();
  others.set(me.tab, { x: hand[0], y: hand[1], user: me.user, name: mine ? "Pen down" : "Pen up", stroke: null, until: Date.now() + GONE_MS });
  surface.movePens();
});
sheet.addEventListener("blur", end);

find("#undo").addEventListener("click", () => {
  const last = strokes.lastOf(me.user);
  if (last) publish({ topic: last.topic, type: "draw.undo" });
});

find("#clear").addEventListener("click", () => {
  const dialog = copy("clear-dialog");
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue === "ok") publish({ topic: `draw.cleared.${ROOM}`, type: "draw.cleared" });
  });
  dialog.showModal();
});

function publish(event) {
  hub.publish(event).catch((error) => tellProblem(`This could not be done: ${error.message}`));
}

function showFacts() {
  const names = [...others].filter(([tab]) => tab !== me.tab).map(([, other]) => other.name || "somebody");
  const company = names.length > 1 ? `, with ${names[0]} and ${names.length - 1} more` : names.length ? `, with ${names[0]}` : "";
  const count = strokes.all().length;
  find("#facts").textContent = `${count} ${count === 1 ? "stroke" : "strokes"}${company}`;
  find("#undo").disabled = !strokes.lastOf(me.user);
}

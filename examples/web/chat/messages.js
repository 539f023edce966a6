/** Shows the messages of the room that is open: one element per entry of its history, in the same order. */

import { copy, fill, find } from "../parts/dom.js";
import { hueOf, me } from "../parts/me.js";

const FOLLOWS_MS = 5 * 60_000;
/** The box that a picture is fitted into, in CSS pixels. */
const BOX = { width: 400, height: 300 };

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export class Messages {
  #list = find("#messages");
  #scroller = find("#scroller");
  #empty = find("#empty");
  #toEnd = find("#to-end");
  #shown = new Map(); // topic -> { element, day, url }
  #history = null;
  #caughtUp = false;
  #isAtEnd = true;

  /** `act.recall(entry)` and `act.again(entry)` are what the buttons of a message do. */
  constructor(act) {
    this.act = act;
    this.#toEnd.addEventListener("click", () => this.#scrollToEnd());
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // The keyboard of a phone takes half of the room away.
    new ResizeObserver(() => this.#isAtEnd && this.#scrollToEnd()).observe(this.#scroller);
  }

  /** Shows another room. */
  open(history, caughtUp) {
    this.#history = history;
    this.#caughtUp = caughtUp;
    for (const shown of this.#shown.values()) forget(shown);
    this.#shown.clear();
    this.#list.replaceChildren();
    this.#list.ariaBusy = String(!caughtUp);
    this.show(history.entries);
    this.#scrollToEnd();
  }

  /** Everything that the stream had is here: from now on what comes is news. */
  caughtUp() {
    this.#caughtUp = true;
    this.#list.ariaBusy = "false";
    this.show([]);
  }

  /** Draws entries that are new or changed, and takes away those that are too many. */
  show(entries) {
    const wasAtEnd = this.#isAtEnd;
    for (const entry of entries) this.#draw(entry);
    for (const entry of this.#history.trim()) this.#drop(entry.topic);
    if (this.#history.entries.length > 0) this.#arrange(undefined, this.#history.entries[0]);
    this.#empty.hidden = !this.#caughtUp || this.#history.entries.length > 0;
    if (wasAtEnd || entries.some((entry) => entry.state === "waiting")) this.#scrollToEnd();
    else if (entries.some((entry) => entry.state === "stored")) this.#toEnd.hidden = false;
  }

  #draw(entry) {
    this.#drop(entry.topic);
    const all = this.#history.entries;
    const at = all.lastIndexOf(entry);
    if (at < 0) return;
    const shown = this.#make(entry);
    this.#shown.set(entry.topic, shown);
    const next = all.slice(at + 1).find((later) => this.#shown.has(later.topic));
    const before = next ? this.#shown.get(next.topic) : null;
    this.#list.insertBefore(shown.element, before?.day ?? before?.element ?? null);
    this.#arrange(all[at - 1], entry);
    if (next) this.#arrange(entry, next);
  }

  #make(entry) {
    const element = copy("message");
    const mine = entry.user === me.user;
    fill(element, { name: entry.name || "Somebody", time: clock.format(entry.time), text: wording(entry, mine), note: note(entry) });
    find("time", element).dateTime = entry.time.toISOString();
    element.style.setProperty("--hue", hueOf(entry.user));
    element.classList.add(entry.state);
    element.classList.toggle("mine", mine);
    Object.assign(element.dataset, { topic: entry.topic, sequence: entry.sequence, state: entry.state });
    const url = entry.picture && showPicture(find("img", element), entry);
    this.#button(element, ".recall", mine && entry.state === "stored", () => this.act.recall(entry));
    this.#button(element, ".again", entry.state === "refused", () => this.act.again(entry));
    return { element, day: null, url };
  }

  #button(element, selector, wanted, act) {
    const button = find(selector, element);
    button.hidden = !wanted;
    if (wanted) button.addEventListener("click", act);
  }

  /** Whether an entry begins a day, or goes on where the one before it left off. */
  #arrange(previous, entry) {
    const shown = this.#shown.get(entry.topic);
    const newDay = previous?.time.toDateString() !== entry.time.toDateString();
    if (newDay && !shown.day) {
      shown.day = fill(copy("day"), { day: calendar.format(entry.time) });
      shown.element.before(shown.day);
    } else if (!newDay) {
      shown.day?.remove();
      shown.day = null;
    }
    const follows = !newDay && previous.user === entry.user && entry.time - previous.time < FOLLOWS_MS;
    shown.element.classList.toggle("follows", follows);
  }

  #drop(topic) {
    const shown = this.#shown.get(topic);
    if (!shown) return;
    this.#shown.delete(topic);
    forget(shown);
    shown.day?.remove();
    shown.element.remove();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#isAtEnd = scrollHeight - scrollTop - clientHeight < 80;
    if (this.#isAtEnd) this.#toEnd.hidden = true;
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#isAtEnd = true;
    this.#toEnd.hidden = true;
  }
}

function wording(entry, mine) {
  if (entry.state !== "recalled") return entry.text;
  return mine ? "You recalled this message." : "This message was recalled.";
}

function note(entry) {
  if (entry.state === "waiting") return "Sending…";
  return entry.state === "refused" ? entry.problem : "";
}

/** The bytes become a picture of one of the known types and nothing else; its address is released with the message. */
function showPicture(image, { picture, name, text }) {
  const url = URL.createObjectURL(new Blob([picture.bytes], { type: picture.type }));
  const scale = Math.min(BOX.width / picture.width, BOX.height / picture.height, 1);
  image.width = Math.round(picture.width * scale);
  image.height = Math.round(picture.height * scale);
  image.alt = text ? `Picture: ${text}` : `Picture from ${name || "somebody"}`;
  image.src = url;
  image.hidden = false;
  return url;
}

function forget(shown) {
  if (shown.url) URL.revokeObjectURL(shown.url);
}

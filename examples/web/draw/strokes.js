/**
 * The strokes of a drawing, in the order in which the stream stored them: the same for everybody, whoever drew at the same
 * time. Pure: no document, no connection, no clock.
 *
 * Every stroke has a topic of its own, `draw.strokes.SHEET.USER.ID`, and the stream keeps one event per topic: to take a
 * stroke back is to publish an empty one to its topic. Clearing is an event on `draw.cleared.SHEET`, and hides every stroke
 * with a lower sequence. Points are whole numbers on a sheet of 4000 by 3000.
 */

export const SHEET = { width: 4000, height: 3000 };
export const COLOURS = 6;
const WIDEST = 60;
/** The most numbers in a stroke, two for each point: a longer line goes on as another stroke. */
export const LONGEST = 1000;
/** The most strokes that a page draws; the earliest make room. */
const MOST_STROKES = 5000;

export class Strokes {
  #byTopic = new Map(); // topic -> { topic, user, sequence, colour, width, points }
  #cleared = 0;

  /**
   * An event of the stream `draw`. Gives `{ added }`, a stroke that lies on top of all others; `{ redraw: true }` where
   * something else changed; or `{}`.
   */
  take(event) {
    const at = Number(event.sequence);
    const [, kind, , user, id, ...more] = event.topic.split(".");
    if (kind === "cleared" && user === undefined) return this.#clear(at);
    if (kind !== "strokes" || !id || more.length > 0) return {};
    const before = this.#byTopic.get(event.topic);
    if (at <= this.#cleared || at <= (before?.sequence ?? 0)) return {};
    this.#byTopic.delete(event.topic);
    const shape = read(event);
    if (shape) this.#byTopic.set(event.topic, { topic: event.topic, user, sequence: at, ...shape });
    const isFull = this.#byTopic.size > MOST_STROKES;
    if (isFull) this.#byTopic.delete(this.#byTopic.keys().next().value);
    if (before || isFull) return { redraw: true };
    return shape ? { added: this.#byTopic.get(event.topic) } : {};
  }

  /** Whether a stroke is done. */
  has(topic) {
    return this.#byTopic.has(topic);
  }

  /** All strokes, from the lowest to the one on top. */
  all() {
    return [...this.#byTopic.values()];
  }

  /** The last stroke of a user, or undefined. */
  lastOf(user) {
    return this.all().findLast((stroke) => stroke.user === user);
  }

  #clear(at) {
    if (at <= this.#cleared) return {};
    this.#cleared = at;
    for (const [topic, { sequence }] of this.#byTopic) if (sequence < at) this.#byTopic.delete(topic);
    return { redraw: true };
  }
}

/** A stroke as the text of an event: colour, width, and each point as the way from the one before. */
export function write({ colour, width, points }) {
  const steps = points.map((value, at) => (at < 2 ? value : value - points[at - 2]));
  return JSON.stringify({ c: colour, w: width, p: steps });
}

/** What such a text says, or null: anybody may have published it. */
export function read({ type, text }) {
  if (type !== "draw.stroke") return null;
  let shape;
  try {
    shape = JSON.parse(text);
  } catch {
    return null;
  }
  const { c: colour, w: width, p: steps } = shape ?? {};
  const isFit = Number.isInteger(colour) && colour >= 0 && colour < COLOURS && width > 0 && width <= WIDEST;
  if (!isFit || !Array.isArray(steps) || steps.length < 2 || steps.length % 2 || steps.length > LONGEST + 2) return null;
  if (!steps.every(Number.isInteger)) return null;
  const points = [];
  steps.forEach((step, at) => points.push(at < 2 ? step : points[at - 2] + step));
  return { colour, width, points };
}

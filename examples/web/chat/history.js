/**
 * The messages of one room, in the order of the stream. Pure: no document, no connection, no clock.
 *
 * Every message has a topic of its own, `chat.messages.ROOM.USER.ID`, and the stream keeps one event per topic. So to
 * recall a message is to publish to its topic again: the new event takes the place of the message in the stream, and
 * who may do that is a matter of rights to topics. A recall says in its attribute `sent` where the message was, so that
 * a page that opens later shows in the right place that there was one.
 */

export const MOST_KEPT = 500;
export const PICTURES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

/** Where a message that the stream does not have yet is shown: behind all others. */
const LAST = Number.MAX_SAFE_INTEGER;

export class History {
  #byTopic = new Map();
  #inOrder = [];

  /** The entries, from the earliest to the latest. Not to be changed. */
  get entries() {
    return this.#inOrder;
  }

  /** A message of this page, which the stream does not have yet. */
  send(entry) {
    return this.#put({ ...entry, sequence: 0, place: LAST, state: "waiting" });
  }

  /** The stream refused it, or nobody knows whether it has it. */
  fail(topic, problem) {
    const entry = this.#byTopic.get(topic);
    if (!entry || entry.sequence > 0) return null;
    entry.state = "refused";
    entry.problem = problem;
    return entry;
  }

  /** It is on its way again. */
  retry(topic) {
    const entry = this.#byTopic.get(topic);
    if (entry?.state === "refused") entry.state = "waiting";
    return entry;
  }

  /** An event that came. Gives the entry that is new or changed by it, or null if there is nothing to show. */
  take(received) {
    const entry = read(received);
    if (!entry) return null;
    const before = this.#byTopic.get(entry.topic);
    if (before && before.sequence >= entry.sequence) return null;
    if (before?.sequence > 0) entry.place = before.place;
    if (before && entry.state === "recalled") entry.name ||= before.name;
    if (before) this.#remove(before);
    return this.#put(entry);
  }

  /** Takes the earliest entries away that are too many, and gives them. */
  trim() {
    const surplus = this.#inOrder.splice(0, Math.max(0, this.#inOrder.length - MOST_KEPT));
    for (const entry of surplus) this.#byTopic.delete(entry.topic);
    return surplus;
  }

  #put(entry) {
    let at = this.#inOrder.length;
    while (at > 0 && this.#inOrder[at - 1].place > entry.place) at -= 1;
    this.#inOrder.splice(at, 0, entry);
    this.#byTopic.set(entry.topic, entry);
    return entry;
  }

  #remove(entry) {
    this.#inOrder.splice(this.#inOrder.indexOf(entry), 1);
    this.#byTopic.delete(entry.topic);
  }
}

/** What an event says, if it is one of a chat. Anybody may have published it, so nothing of it is taken on trust. */
function read(event) {
  const [, kind, , user, id, ...more] = event.topic.split(".");
  if (kind !== "messages" || !id || more.length > 0) return null;
  const at = Number(event.sequence);
  const { name = "", sent, caption = "", width, height } = event.attributes;
  const entry = {
    topic: event.topic,
    user,
    name: name.slice(0, 40),
    time: event.appendTime,
    sequence: at,
    place: at,
    state: "stored",
    text: "",
    picture: null,
  };
  if (event.type === "chat.recall") {
    const before = Number(sent);
    return { ...entry, state: "recalled", place: before > 0 && before < at ? before : at };
  }
  if (event.type !== "chat.message") return null;
  if (event.text === undefined && PICTURES.includes(event.contentType)) {
    const picture = { bytes: event.data, type: event.contentType, width: side(width), height: side(height) };
    return { ...entry, text: caption, picture };
  }
  return { ...entry, text: event.text ?? "" };
}

/** A width or height in pixels, as somebody says it is. */
function side(text) {
  return Math.min(Math.max(Number(text) || 320, 16), 10_000);
}

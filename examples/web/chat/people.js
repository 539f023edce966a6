/**
 * Who is here. Every tab says so on a topic of its own, `chat.here.ROOM.USER.TAB`, with an event that has a ttl, and
 * says it again before the ttl has passed. A tab that is closed says that too; one that crashes says nothing, and the
 * stream and all pages forget it when the ttl is over. Pure but for the time, which is handed in.
 */

export class People {
  #byTopic = new Map(); // topic -> { room, user, name, until }
  #skew = Infinity;

  /** An event of the stream `chat-here`. `now` is the clock of this page, in milliseconds. */
  take(event, now) {
    const [, kind, room, user, tab, ...more] = event.topic.split(".");
    if (kind !== "here" || !tab || more.length > 0) return;
    if (event.type === "chat.left") {
      this.#byTopic.delete(event.topic);
      return;
    }
    const stored = event.appendTime.getTime();
    // How far the clock of this page is ahead of the hub's. An event that has just been stored comes at once, so the
    // least difference seen is the closest.
    this.#skew = Math.min(this.#skew, now - stored);
    const until = stored + ttlOf(event) + this.#skew;
    this.#byTopic.set(event.topic, { room, user, name: (event.attributes.name ?? "").slice(0, 40), until });
  }

  /** The stream was created again, as by a restart of the hub: nobody is known until they say so again. */
  forget() {
    this.#byTopic.clear();
  }

  /** Drops everybody whose ttl is over. True if there was somebody. */
  sweep(now) {
    const before = this.#byTopic.size;
    for (const [topic, { until }] of this.#byTopic) if (until <= now) this.#byTopic.delete(topic);
    return this.#byTopic.size < before;
  }

  /** Who is in a room, by name; each user once, however many tabs they have. */
  of(room) {
    const users = new Map();
    for (const person of this.#byTopic.values()) if (person.room === room) users.set(person.user, person);
    return [...users.values()].sort((a, b) => a.name.localeCompare(b.name) || a.user.localeCompare(b.user));
  }
}

const LONGEST_TTL_MS = 10 * 60_000;

function ttlOf(event) {
  const ms = Number.parseFloat(event.wire.event.ttl ?? "0") * 1000;
  return Math.min(Math.max(ms, 0), LONGEST_TTL_MS);
}

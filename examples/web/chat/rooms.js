/** The list of rooms, and which of them is open: the one in the address of the page, `#room=lobby`. */

import { copy, fill, find, randomToken } from "../parts/dom.js";

export const LOBBY = "lobby";
const MOST_ROOMS = 100;
const LONGEST_TITLE = 40;

export class Rooms {
  #list = find("#rooms");
  #titles = new Map([[LOBBY, "Lobby"]]);
  #shown = new Map();
  #unread = new Map();
  open = fromAddress();

  /** `opened(room)` is called whenever another room is open. */
  constructor(opened) {
    addEventListener("hashchange", () => {
      this.open = fromAddress();
      this.#unread.delete(this.open);
      this.draw();
      opened(this.open);
    });
  }

  /** An event on `chat.rooms.ROOM`, whose text is the title. */
  take(event) {
    const [, kind, room, ...more] = event.topic.split(".");
    if (kind !== "rooms" || !room || more.length > 0 || this.#titles.size >= MOST_ROOMS) return;
    this.#titles.set(room, tidy(event.text ?? "") || room);
    this.draw();
  }

  title(room) {
    return this.#titles.get(room) ?? room;
  }

  /** The room with this title, and the event that opens it. */
  named(title) {
    const text = tidy(title);
    const token = text.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 32);
    const room = token || randomToken(6);
    return { room, event: { topic: `chat.rooms.${room}`, type: "chat.room", text } };
  }

  /** Something new was said in a room that is not open. */
  addUnread(room, count) {
    this.#unread.set(room, (this.#unread.get(room) ?? 0) + count);
    this.draw();
  }

  /** `here(room)` is how many people are in a room. */
  draw(here = this.here) {
    this.here = here ?? (() => 0);
    if (!this.#titles.has(this.open)) this.#titles.set(this.open, this.open);
    for (const [room, title] of this.#titles) {
      const element = this.#shown.get(room) ?? this.#add(room);
      const [people, unread] = [this.here(room), this.#unread.get(room) ?? 0];
      fill(element, { title, here: people, unread: `${unread} new` });
      find('[data-is="unread"]', element).hidden = unread === 0;
      find(".here", element).hidden = people === 0;
      const link = find("a", element);
      if (room === this.open) link.ariaCurrent = "page";
      else link.ariaCurrent = null;
    }
  }

  #add(room) {
    const element = copy("room");
    find("a", element).href = `#room=${encodeURIComponent(room)}`;
    element.dataset.room = room;
    this.#shown.set(room, element);
    this.#list.append(element);
    return element;
  }
}

function fromAddress() {
  const room = new URLSearchParams(location.hash.slice(1)).get("room") ?? "";
  return /^[\w:=@-]{1,40}$/.test(room) ? room : LOBBY;
}

function tidy(title) {
  return title.replace(/\s+/g, " ").trim().slice(0, LONGEST_TITLE);
}

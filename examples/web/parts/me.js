/**
 * Who sits in front of this page: a user, who is the same in all tabs of a browser, and a tab. Without authentication a
 * hub believes what a page says of itself. With it, the user would be the principal, and a policy would allow each
 * principal to publish only to topics with its own name: that is why names of users are tokens of topics.
 */

import { copy, find, randomToken } from "./dom.js";

const MOST_LETTERS = 40;

export const me = { user: kept("user", () => randomToken(6)), tab: randomToken(4), name: localStorage.getItem("name") ?? "" };

function kept(key, make) {
  if (!localStorage.getItem(key)) localStorage.setItem(key, make());
  return localStorage.getItem(key);
}

/** A name as it may be shown: one line, not too long. */
export function tidyName(text) {
  return String(text).replace(/\s+/g, " ").trim().slice(0, MOST_LETTERS);
}

/** Asks for a name unless there is one, or `again`. Resolves with it; what it was stays if the dialog is closed. */
export async function askName(again = false) {
  if (me.name && !again) return me.name;
  const dialog = copy("name-dialog");
  const input = find("input", dialog);
  input.value = me.name;
  document.body.append(dialog);
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  const given = dialog.returnValue === "ok" ? tidyName(input.value) : "";
  dialog.remove();
  me.name = given || me.name || `Guest ${me.user.slice(0, 4)}`;
  localStorage.setItem("name", me.name);
  return me.name;
}

/** A hue for a user, the same on every page. */
export function hueOf(user) {
  let hash = 0;
  for (const letter of user) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash % 360;
}

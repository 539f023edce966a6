/** Tells whoever sits in front of a page how its connection is, and what went wrong. */

import { fill, find } from "./dom.js";

/** In a word, and what a narrow page has no room for. */
const WORDS = {
  idle: ["Off", ""],
  connecting: ["Connecting", ""],
  up: ["Live", ""],
  draining: ["Live", ", hub is leaving"],
  waiting: ["Lost", ", trying again"],
  closing: ["Closing", ""],
  closed: ["Closed", ""],
  failed: ["Refused", ""],
};

/** Shows a state in the badge. `back` is how often the connection came back. */
export function showState(state, back) {
  const badge = find("#badge");
  const [word, more] = WORDS[state];
  const again = back > 0 && state === "up" ? `, back ${back === 1 ? "once" : `${back} times`}` : more;
  Object.assign(badge.dataset, { state, back: Math.max(back, 0) });
  fill(badge, { word, more: again });
}

/** Shows what went wrong, until something else does; an empty text takes it away. */
export function tellProblem(text) {
  const notice = find("#notice");
  notice.textContent = text;
  notice.hidden = !text;
}

/**
 * The one connection of a page to its hub. Everything else on a page gets the client from here, so this is the only file
 * that knows where the hub is.
 */

import { connect } from "../switchyard.js";
import { showState, tellProblem } from "./badge.js";

/** Opens the client of this page and shows in the badge how it is. `name` is what operators see in lists of sessions. */
export function open(name) {
  let sessions = 0;
  return connect({
    name,
    addresses: address(),
    onState({ state, reason }) {
      if (state === "up") sessions += 1;
      showState(state, sessions - 1);
      if (state === "failed") tellProblem(`The hub refuses this page: ${reason.text}`);
    },
  });
}

/** The web listener: the server of this page, unless the page names another one in `<meta name="switchyard-hub">`. */
function address() {
  const other = document.querySelector('meta[name="switchyard-hub"]')?.content;
  return other || location.origin;
}

/** Calls `act` whenever there is a session again. */
export function whenUp(client, act) {
  client.on("state", ({ state }) => state === "up" && act());
}

/**
 * Reads a subscription until it is over. `events` gets what came together, and the next comes when it is done with it, so
 * that a page that is slow slows the hub down and keeps nothing.
 */
export async function follow(subscription, { events, gap = () => {}, caughtUp = () => {} }) {
  try {
    for await (const item of subscription) {
      if (item.kind === "events") await events(item.events);
      else if (item.kind === "gap") gap(item);
      else caughtUp();
    }
  } catch (error) {
    tellProblem(error.reason === "STREAM_NOT_FOUND" ? `${error.text} Create it: examples/web/streams.sh` : error.message);
  }
}

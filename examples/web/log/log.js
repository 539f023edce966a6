/**
 * The log of a stream by server-sent events: what a page can do without any client. When the connection is lost the
 * browser opens it again by itself and sends the `id` of the last event in `Last-Event-ID`; the hub goes on behind it.
 */

import { copy, fill, find } from "../parts/dom.js";
import { showState, tellProblem } from "../parts/badge.js";

const MOST_ROWS = 200;
const asked = new URLSearchParams(location.search);
let connections = 0;

if (asked.get("stream")) follow(asked.get("stream"), asked.get("filter"));

function follow(stream, filter) {
  const form = find("#which");
  [form.elements.stream.value, form.elements.filter.value] = [stream, filter ?? ""];
  const address = new URL("/v1/events", document.querySelector('meta[name="switchyard-hub"]')?.content || location.href);
  address.search = new URLSearchParams({ stream, start: "earliest", on_gap: "earliest", ...(filter && { filter }) });
  const source = new EventSource(address);
  showState("connecting", 0);
  find("#empty").textContent = `Nothing has come from ${stream} yet.`;

  // Not "open": a hub that cannot read the stream yet opens, too, and says so.
  source.addEventListener("subscribed", () => {
    connections += 1;
    find("#connections").textContent = connections;
    showState("up", connections - 1);
    tellProblem("");
  });
  source.addEventListener("error", () => {
    const isOver = source.readyState === EventSource.CLOSED;
    showState(isOver ? "failed" : "waiting", connections - 1);
    if (isOver) tellWhy(address);
  });

  // What a subscription gets comes without a name, everything that the hub says of it with one.
  source.addEventListener("message", (message) => show(JSON.parse(message.data), message.lastEventId));
  source.addEventListener("progress", (message) => (find("#last").textContent = message.lastEventId || "none"));
  source.addEventListener("gap", (message) => showGap(JSON.parse(message.data)));
  source.addEventListener("ended", (message) => {
    const { status, retry } = JSON.parse(message.data);
    tellProblem(status?.message ?? "");
    if (retry?.retry) return;
    source.close();
    showState("closed", 0);
  });
}

/** An EventSource does not say why it was refused. A request for the same does. */
async function tellWhy(address) {
  const answer = await fetch(address);
  tellProblem(answer.ok ? "" : (await answer.json()).message);
}

function show({ event, sequence }, id) {
  const payload = event.text ?? (event.data === undefined ? "" : `${Math.floor((event.data.length * 3) / 4)} bytes of ${event.contentType || "something"}`);
  const row = fill(copy("event"), { sequence, topic: event.topic, payload });
  row.dataset.sequence = sequence;
  add(row);
  find("#last").textContent = id;
}

function showGap({ count, reason }) {
  const row = fill(copy("event"), { sequence: "", topic: "", payload: `Events are missing here (${count ?? "nobody knows how many"}): ${reason}` });
  row.className = "gap";
  add(row);
}

function add(row) {
  const rows = find("#events");
  rows.prepend(row);
  [find("#table").hidden, find("#empty").hidden] = [false, true];
  while (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
}

find("#which").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  location.search = new URLSearchParams(new FormData(submitted.target));
});

/**
 * A live board of prices. The subscription is live and conflates: while the page is busy, the hub keeps the latest price
 * of each share and counts the others as skipped. The page takes no more than it can draw, so however fast prices are
 * published, what it shows is never old.
 */

import { copy, fill, find, oncePerFrame } from "../parts/dom.js";
import { follow, open } from "../parts/hub.js";
import { Prices, spark } from "./prices.js";

const BOX = { width: 240, height: 48 };

const hub = open("web-board");
const prices = new Prices();
const rows = new Map();
const counts = { drawn: 0, skipped: 0, missed: 0 };
const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat();

follow(hub.subscribe({ filters: ["stocks.*"], overflow: "conflate", window: 64 }), {
  async events(events) {
    for (const event of events) counts.drawn += prices.take(event);
    draw();
    // Until the next frame nothing that comes could be seen: meanwhile the hub conflates. A hidden page has no frames.
    await new Promise(requestAnimationFrame);
  },
  gap(gap) {
    if (gap.reason === "conflated") counts.skipped += gap.count;
    else counts.missed += 1;
    draw();
  },
});

const draw = oncePerFrame(() => {
  for (const share of prices.changed()) drawShare(share);
  find("#empty").hidden = rows.size > 0;
  find("#drawn").textContent = whole.format(counts.drawn);
  find("#skipped").textContent = whole.format(counts.skipped);
  find("#missed").textContent = ["never", "once"][counts.missed] ?? `${counts.missed} times`;
});

function drawShare(share) {
  const row = rows.get(share.symbol) ?? addRow(share.symbol);
  const [before, price] = [share.points.at(-2) ?? share.points.at(-1), share.points.at(-1)];
  const change = price - before;
  const arrow = change > 0 ? "▲ " : change < 0 ? "▼ " : "± ";
  fill(row, {
    symbol: share.symbol,
    month: share.month,
    price: money.format(price),
    change: `${arrow}${money.format(Math.abs(change))}`,
    seen: whole.format(share.seen),
  });
  row.classList.toggle("rises", change > 0);
  row.classList.toggle("falls", change < 0);
  const { line, area } = spark(share.points, BOX.width, BOX.height);
  find(".line", row).setAttribute("d", line);
  find(".area", row).setAttribute("d", area);
  const [low, high] = [Math.min(...share.points), Math.max(...share.points)];
  find(".spark", row).setAttribute("aria-label", `The last ${share.points.length} prices, from ${money.format(low)} to ${money.format(high)}`);
}

function addRow(symbol) {
  const row = copy("row");
  row.dataset.symbol = symbol;
  rows.set(symbol, row);
  const after = [...rows.keys()].sort().find((other) => other > symbol);
  find("#rows").insertBefore(row, after ? rows.get(after) : null);
  return row;
}

let before = 0;
setInterval(() => {
  const all = counts.drawn + counts.skipped;
  find("#rate").textContent = whole.format(all - before);
  before = all;
}, 1000);

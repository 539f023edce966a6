/** The latest price of each share, and the ones before it. Pure: no document, no connection, no clock. */

/** How many prices a sparkline shows. */
export const MOST_POINTS = 120;
/** Anybody may publish to `stocks.>`; more shares than this are ignored. */
export const MOST_SHARES = 50;

export class Prices {
  #bySymbol = new Map();
  #changed = new Set();

  /** An event on `stocks.SYMBOL`, whose text is `{"symbol": …, "date": …, "price": …}`. True if it is a price. */
  take(event) {
    const symbol = event.topic.split(".")[1];
    const row = parsed(event.text);
    const price = Number.parseFloat(row?.price);
    if (!symbol || !Number.isFinite(price)) return false;
    const share = this.#bySymbol.get(symbol) ?? this.#add(symbol);
    if (!share) return false;
    share.points.push(price);
    if (share.points.length > MOST_POINTS) share.points.shift();
    Object.assign(share, { month: String(row.date ?? "").slice(0, 20), seen: share.seen + 1 });
    this.#changed.add(share);
    return true;
  }

  /** The shares that have changed since the last call. */
  changed() {
    const shares = [...this.#changed];
    this.#changed.clear();
    return shares;
  }

  #add(symbol) {
    if (this.#bySymbol.size >= MOST_SHARES) return null;
    const share = { symbol, month: "", points: [], seen: 0 };
    this.#bySymbol.set(symbol, share);
    return share;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Paths of a sparkline in a box: the line, and the area below it. */
export function spark(points, width, height) {
  if (points.length < 2) return { line: "", area: "" };
  const [low, high] = [Math.min(...points), Math.max(...points)];
  const [across, pad] = [width / (points.length - 1), 3];
  const up = (price) => height - pad - ((price - low) / (high - low || 1)) * (height - 2 * pad);
  const line = points.map((price, at) => `${at ? "L" : "M"}${(at * across).toFixed(1)} ${up(price).toFixed(1)}`).join("");
  return { line, area: `${line}V${height}H0Z` };
}

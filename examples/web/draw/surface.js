/** Two canvases on top of each other: ink that stays, and pens that move. Knows how to draw, and nothing of the hub. */

import { find, oncePerFrame } from "../parts/dom.js";
import { hueOf } from "../parts/me.js";
import { SHEET } from "./strokes.js";

const LIGHT = ["#17211d", "#c92a2a", "#d9820f", "#2b8a3e", "#1864ab", "#7048c6"];
const DARK = ["#e8eeea", "#ff8787", "#ffc04d", "#69db7c", "#74c0fc", "#b79cff"];

export class Surface {
  #ink = find("#ink");
  #pens = find("#pens");
  #dark = matchMedia("(prefers-color-scheme: dark)");
  /** `strokes()` gives everything that is ink, `pens()` everything that moves: `{ strokes, cursors }`. */
  constructor(strokes, pens) {
    this.strokes = strokes;
    this.pens = pens;
    this.redraw = oncePerFrame(() => this.#redraw());
    this.movePens = oncePerFrame(() => this.#drawPens());
    this.#dark.addEventListener("change", () => this.#recolour());
    new ResizeObserver(() => this.#resize()).observe(this.#ink);
    this.#recolour();
  }

  /** One more stroke on top, without drawing all of them again. */
  add(stroke) {
    trace(this.#ink, stroke, this.#colours());
  }

  /** Where on the sheet a pointer is. */
  place({ clientX, clientY }) {
    const box = this.#pens.getBoundingClientRect();
    const on = (at, size, most) => Math.round(Math.min(Math.max(at / size, 0), 1) * most);
    return [on(clientX - box.left, box.width, SHEET.width), on(clientY - box.top, box.height, SHEET.height)];
  }

  #colours() {
    return this.#dark.matches ? DARK : LIGHT;
  }

  #recolour() {
    for (const input of document.querySelectorAll('[name="colour"]')) input.style.setProperty("--colour", this.#colours()[input.value]);
    this.redraw();
  }

  #resize() {
    const scale = Math.min(devicePixelRatio || 1, 3);
    for (const canvas of [this.#ink, this.#pens]) {
      canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    }
    this.#redraw();
    this.#drawPens();
  }

  #redraw() {
    wipe(this.#ink);
    for (const stroke of this.strokes()) this.add(stroke);
  }

  #drawPens() {
    wipe(this.#pens);
    const { strokes, cursors } = this.pens();
    for (const stroke of strokes) trace(this.#pens, stroke, this.#colours());
    for (const cursor of cursors) label(this.#pens, cursor);
  }
}

function wipe(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

function trace(canvas, { colour, width, points }, colours) {
  const pen = canvas.getContext("2d");
  const scale = canvas.width / SHEET.width;
  pen.strokeStyle = colours[colour];
  pen.lineWidth = width * scale;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(points[0] * scale, points[1] * scale);
  // A line through the middles of the points, bent at the points: smooth, and the same for everybody.
  for (let at = 2; at + 3 < points.length; at += 2) {
    const [x, y] = [points[at] * scale, points[at + 1] * scale];
    pen.quadraticCurveTo(x, y, (x + points[at + 2] * scale) / 2, (y + points[at + 3] * scale) / 2);
  }
  pen.lineTo(points.at(-2) * scale, points.at(-1) * scale);
  pen.stroke();
}

function label(canvas, { x, y, name, user }) {
  const pen = canvas.getContext("2d");
  const ratio = canvas.width / canvas.clientWidth;
  const scale = canvas.width / SHEET.width;
  const size = 13 * ratio;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const width = pen.measureText(name).width + size;
  const [left, top] = [Math.min(x * scale + size, canvas.width - width), Math.min(y * scale + size, canvas.height - 2 * size)];
  pen.fillStyle = `hsl(${hueOf(user)} 55% 32%)`;
  pen.beginPath();
  pen.arc(x * scale, y * scale, 4 * ratio, 0, 7);
  pen.fill();
  pen.beginPath();
  pen.roundRect(left, top, width, size * 1.7, size * 0.4);
  pen.fill();
  pen.fillStyle = "#fff";
  pen.fillText(name, left + size / 2, top + size * 1.2);
}

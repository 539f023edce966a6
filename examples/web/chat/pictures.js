/** Makes a picture fit into an event: as it is if it can be, else smaller and as JPEG. */

import { PICTURES } from "./history.js";

const SIDES = [2048, 1600, 1200, 900, 640, 400];
const QUALITIES = [0.85, 0.7, 0.5];

/** Resolves with `{ bytes, type, width, height }`, at most `limit` bytes. Rejects with an error that can be shown. */
export async function fit(file, limit) {
  if (!PICTURES.includes(file.type)) throw new Error("This is not a PNG, JPEG, WebP or GIF picture.");
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("This picture cannot be read.");
  });
  try {
    // A JPEG may say where it was taken, so it is always drawn again.
    if (file.type !== "image/jpeg" && file.size <= limit) return await packed(file, bitmap.width, bitmap.height);
    for (const side of SIDES) {
      const scale = Math.min(side / bitmap.width, side / bitmap.height, 1);
      const canvas = drawn(bitmap, Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
      for (const quality of QUALITIES) {
        const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", quality));
        if (blob && blob.size <= limit) return await packed(blob, canvas.width, canvas.height);
      }
    }
  } finally {
    bitmap.close();
  }
  throw new Error("This picture does not fit into an event.");
}

function drawn(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const paper = canvas.getContext("2d");
  paper.fillStyle = "#fff"; // JPEG has no transparency
  paper.fillRect(0, 0, width, height);
  paper.drawImage(bitmap, 0, 0, width, height);
  return canvas;
}

async function packed(blob, width, height) {
  return { bytes: new Uint8Array(await blob.arrayBuffer()), type: blob.type, width, height };
}

/** Pictures for tests, made here so that none has to be kept: PNG, 8 bits, red, green and blue. */

import { randomBytes } from "node:crypto";
import { deflateSync } from "node:zlib";

const table = Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function checksum(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = table[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(checksum(body));
  return Buffer.concat([length, body, sum]);
}

function png(width, height, rows) {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const parts = [chunk("IHDR", head), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), ...parts]);
}

/** A sky above a field: small. */
export function landscape(width, height) {
  const rows = Buffer.alloc(height * (1 + width * 3));
  for (let y = 0; y < height; y += 1) {
    const part = y / height;
    const colour = part < 0.6 ? [142 + 150 * part, 197 - 20 * part, 232 - 100 * part] : [70, 110 - 60 * (part - 0.6), 80];
    for (let x = 0; x < width; x += 1) rows.set(colour, y * (1 + width * 3) + 1 + x * 3);
  }
  return png(width, height, rows);
}

/** What no compression makes smaller. */
export function noise(width, height) {
  const rows = randomBytes(height * (1 + width * 3));
  for (let y = 0; y < height; y += 1) rows[y * (1 + width * 3)] = 0;
  return png(width, height, rows);
}

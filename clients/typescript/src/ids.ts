// Ids for events: UUIDs of version 7, which begin with the time, so that those of one client sort by when they were made.
//
// An event gets its id once, before it is first written, and keeps it however often it is written again: it is what the hub
// finds duplicates by.

/** An id that is made at this time, in milliseconds since 1970, of 16 random bytes. */
export function uuid7(at: number, random: Uint8Array): string {
  const bytes = random.slice(0, 16);
  // 48 bits of time, the version, 12 random bits, the variant, 62 random bits.
  for (let byte = 0; byte < 6; byte += 1) {
    bytes[byte] = Math.floor(at / 2 ** (8 * (5 - byte))) % 256;
  }
  bytes[6] = 0x70 | ((bytes[6] as number) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] as number) & 0x3f);
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${text.slice(0, 8)}-${text.slice(8, 12)}-${text.slice(12, 16)}-${text.slice(16, 20)}-${text.slice(20)}`;
}

/** An id that is made now. */
export function newId(): string {
  return uuid7(Date.now(), crypto.getRandomValues(new Uint8Array(16)));
}

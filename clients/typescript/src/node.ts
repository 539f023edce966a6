// What there is for programs in Node alone.

import { lstat, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

import type { PositionStore } from "./position.js";

/** No token of a hub is longer, in bytes. */
const MAX_TOKEN_LENGTH = 256;

/**
 * Keeps a place in a file, which has the token and nothing else. Whoever reads it finds one token or another, whole, and a
 * crash of the machine leaves the last or the one before.
 */
export class FilePosition implements PositionStore {
  /** A store in this file, which need not be there. */
  constructor(readonly path: string) {}

  async load(): Promise<string | undefined> {
    const found = await lstat(this.path).catch(unlessMissing);
    if (found === undefined) {
      return undefined;
    }
    // It would be replaced by a file, and what it leads to would keep an old token.
    if (found.isSymbolicLink()) {
      throw this.bad("is a symbolic link");
    }
    const token = (await readFile(this.path, "utf8")).trim();
    if (token === "") {
      throw this.bad("is empty");
    }
    if (Buffer.byteLength(token) > MAX_TOKEN_LENGTH || /\s/.test(token)) {
      throw this.bad("does not hold a resume token");
    }
    return token;
  }

  async keep(token: string): Promise<void> {
    const beside = `${this.path}.new`;
    // A new file, whatever there was: nothing is written through a link that somebody left there.
    await rm(beside, { force: true });
    // A token opens what its owner may read: the file is for the owner alone.
    const file = await open(beside, "wx", 0o600);
    try {
      await file.writeFile(`${token}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, this.path);
    await syncFolder(dirname(this.path));
  }

  private bad(problem: string): Error {
    return new Error(`${this.path} ${problem}; remove it to start over`);
  }
}

function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") {
    throw error;
  }
}

/** What a folder has is on the disk when the folder is. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") {
    return;
  }
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

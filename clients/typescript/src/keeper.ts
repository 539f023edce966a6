// Keeps the place of one subscription in its store, one token after the other.

import { failure, type SwitchyardError } from "./error.js";
import type { PositionStore } from "./position.js";

/** The store of one subscription. */
export class Keeper {
  /** What is kept. */
  private kept: string | undefined;
  /** A later place is not to be overtaken by an earlier one. */
  private last: Promise<void> = Promise.resolve();

  constructor(private readonly store: PositionStore) {}

  /** Asks the store for the place of an earlier run. */
  async load(): Promise<string | undefined> {
    try {
      this.kept = await this.store.load();
      return this.kept;
    } catch (error) {
      throw failed("the position cannot be read", error);
    }
  }

  /** Keeps the place, if it has moved. */
  keep(place: () => string | undefined): Promise<void> {
    const keeping = this.last.then(async () => {
      const token = place();
      if (token === undefined || token === this.kept) {
        return;
      }
      try {
        await this.store.keep(token);
      } catch (error) {
        throw failed("the position is not kept", error);
      }
      this.kept = token;
    });
    // Whoever asked hears of a failure; the next one tries again.
    this.last = keeping.catch(() => undefined);
    return keeping;
  }
}

function failed(what: string, error: unknown): SwitchyardError {
  const why = error instanceof Error ? error.message : String(error);
  return failure("source", "INTERNAL", "POSITION_STORE", `${what}: ${why}`);
}

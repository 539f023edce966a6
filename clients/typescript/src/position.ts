// Where the place of a subscription is kept between two runs of a program: a resume token, which is a short text.

/**
 * Keeps the place of one subscription.
 *
 * The client reads it once, when it subscribes, and writes it after a batch is done, never before. It writes one token after
 * the other and waits for each. A program that stores the results of its work in a database does best to store `Batch.token`
 * there too, in the same transaction, and start from it.
 */
export interface PositionStore {
  /** The token that was kept last; `undefined` for a subscription that begins. */
  load(): Promise<string | undefined>;
  /** Keeps a token in place of the one before. */
  keep(token: string): Promise<void>;
}

/** Keeps a place for as long as the program runs: for a subscription that is closed and opened again. */
export class MemoryPosition implements PositionStore {
  /** The token that was kept last. */
  token: string | undefined;

  load(): Promise<string | undefined> {
    return Promise.resolve(this.token);
  }

  keep(token: string): Promise<void> {
    this.token = token;
    return Promise.resolve();
  }
}

/** Keeps a place in the storage of a browser, such as `localStorage`, under a name. Two tabs must not share a name. */
export class StoragePosition implements PositionStore {
  constructor(
    private readonly storage: Pick<Storage, "getItem" | "setItem">,
    private readonly name: string,
  ) {}

  load(): Promise<string | undefined> {
    return attempt(() => this.storage.getItem(this.name) ?? undefined);
  }

  keep(token: string): Promise<void> {
    return attempt(() => this.storage.setItem(this.name, token));
  }
}

/** What fails fails the promise. */
async function attempt<T>(act: () => T): Promise<T> {
  return act();
}

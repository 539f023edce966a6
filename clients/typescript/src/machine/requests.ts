// The requests of a session that the hub will answer, by their ids. Pure.

/** Ids below this are of commands that are answered only on failure; they are not remembered. */
const FIRST_REQUEST = 16;
/** The id of every command of these kinds. `unsubscribe` is answered by `ended`, which bears the subscription. */
export const FIXED_IDS = { hello: 1, authenticate: 2, unsubscribe: 3, credit: 4 } as const;

/** What was asked: to open a subscription, to store what was said of its events, or to publish. */
export type Asked = { readonly to: "subscribe" | "acknowledge"; readonly id: number } | { readonly to: "publish" };

/** The requests that are open. Ids are not used again: nobody can take one answer for another. */
export class Requests {
  private upcoming = FIRST_REQUEST;
  private readonly all = new Map<number, Asked>();

  /** The id that the next request will have. */
  next(): number {
    return this.upcoming;
  }

  /** A request is written, with the id that was next. */
  open(asked: Asked): number {
    const request = this.upcoming;
    this.upcoming += 1;
    this.all.set(request, asked);
    return request;
  }

  /** A request is answered: what it was. */
  close(request: number): Asked | undefined {
    const asked = this.all.get(request);
    this.all.delete(request);
    return asked;
  }

  /** The session is over, and nothing is answered any more. */
  clear(): void {
    this.all.clear();
  }
}

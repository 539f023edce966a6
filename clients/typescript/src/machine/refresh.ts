// When a session needs a fresh token, and what becomes of it. Pure.
//
// Every answer belongs to the session it was asked for: a token that comes late, for a session that is over, is thrown away.

import { Backoff, type Random } from "./backoff.js";

/** How long to wait before a source that failed, or whose token was refused, is asked again: at first, and in the end. */
const REFRESH_WAITS = { shortest: 500, longest: 30_000 };
/** The longest token that a hub takes, in bytes. */
export const MAX_TOKEN_BYTES = 12_288;

/** A token that a source gave, and how long it is still good, in milliseconds, if that is known. */
export interface Fresh {
  readonly value: string;
  readonly life: number | undefined;
}

/** The token of the current session. */
export class Refresh {
  private session = 0;
  private at: number | undefined;
  private isFetching = false;
  /** To be written. */
  private fresh: Fresh | undefined;
  /** The source says how long its tokens are good; otherwise the hub does. */
  private knowsLife = false;
  private readonly backoff: Backoff;

  constructor(
    readonly hasSource: boolean,
    random: Random,
  ) {
    this.backoff = new Backoff(REFRESH_WAITS.shortest, REFRESH_WAITS.longest, random);
  }

  /** A session begins, with a token that is good for this long, if that is known. */
  sessionBegins(now: number, session: number, life: number | undefined): void {
    this.session = session;
    this.isFetching = false;
    this.fresh = undefined;
    this.knowsLife = life !== undefined;
    this.at = life === undefined ? undefined : now + fourFifths(life);
    this.backoff.reset();
  }

  /** The hub says how long the token is still good. */
  hubSays(now: number, life: number): void {
    if (!this.knowsLife) {
      this.at = now + fourFifths(life);
    }
  }

  /** The hub says that it is time. */
  expiring(now: number): void {
    this.at = Math.min(this.at ?? now, now);
  }

  /** The session for which the source is to be asked now, if it is time. The answer comes with `fetched`. */
  fetch(now: number): number | undefined {
    const due = this.due();
    if (due === undefined || due > now) {
      return undefined;
    }
    this.isFetching = true;
    return this.session;
  }

  /** The source has answered. False when that cannot be used. */
  fetched(now: number, session: number, token: Fresh | undefined): boolean {
    if (session !== this.session || !this.isFetching) {
      return true;
    }
    this.isFetching = false;
    // Tokens are ASCII; one that is not is refused by the hub.
    if (token === undefined || token.value === "" || token.value.length > MAX_TOKEN_BYTES) {
      this.refused(now);
      return false;
    }
    this.knowsLife = token.life !== undefined;
    this.at = undefined;
    if (token.life !== undefined) {
      const wait = fourFifths(token.life);
      // One that is over when it comes, perhaps because clocks differ, is not replaced by the next such at once.
      this.at = now + (wait >= REFRESH_WAITS.shortest ? wait : this.backoff.next());
    }
    this.fresh = token;
    return true;
  }

  /** The token is to be written. */
  hasFresh(): boolean {
    return this.fresh !== undefined;
  }

  /** The token to write. */
  take(): string | undefined {
    const value = this.fresh?.value;
    this.fresh = undefined;
    return value;
  }

  /** The hub has refused the token: another one is needed. */
  refused(now: number): void {
    this.at = now + this.backoff.next();
  }

  sessionLost(): void {
    this.at = undefined;
    this.isFetching = false;
    this.fresh = undefined;
  }

  /** When the source is to be asked. */
  due(): number | undefined {
    return this.hasSource && !this.isFetching && this.fresh === undefined ? this.at : undefined;
  }
}

function fourFifths(life: number): number {
  return (Math.max(life, 0) / 5) * 4;
}

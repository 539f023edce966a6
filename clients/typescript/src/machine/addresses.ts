// Which hub to connect to: a list in random order, so that clients spread over hubs, and the next one after each failure. Pure.

import { type Random, shuffle } from "./backoff.js";

/** At most this many addresses are known besides those that the user has given. */
export const MOST_LEARNED = 64;
/** The longest address that a hub may name, in bytes. Longer ones are ignored. */
export const MAX_NAMED_BYTES = 256;

/** The addresses of hubs that serve the same events. */
export class Addresses {
  /** Those that the user has given, then those that hubs have named, the oldest first. */
  private readonly all: string[];
  private readonly given: number;
  private at = 0;

  /** These, in random order. There is at least one. */
  constructor(
    given: readonly string[],
    private readonly random: Random,
  ) {
    this.all = [...given];
    shuffle(this.all, random);
    this.given = this.all.length;
  }

  /** The one to connect to now. */
  current(): string {
    return this.all[this.at] ?? "";
  }

  get count(): number {
    return this.all.length;
  }

  /** That one does not serve, or not any longer. */
  next(): void {
    this.at = (this.at + 1) % Math.max(this.all.length, 1);
  }

  /**
   * The hub that this is connected to names others. They are tried after those that are known; when there are too many, the
   * one that was named first makes room.
   */
  learn(others: readonly string[]): void {
    const named = others.filter((other) => this.mayFollow(other));
    // Not all clients of a hub are to go to the same one.
    shuffle(named, this.random);
    for (const other of named) {
      if (!this.all.includes(other)) {
        this.makeRoom();
        this.all.push(other);
      }
    }
  }

  /** A hub may name this one: it is what the contract has, and does not lead from TLS to where everybody can listen. */
  private mayFollow(other: string): boolean {
    const needsSafety = isOfTls(this.current());
    const isSafe = other.startsWith("https://");
    // Addresses are ASCII; one that is not is longer in bytes, and no address.
    return other.length <= MAX_NAMED_BYTES && (isSafe || (other.startsWith("http://") && !needsSafety));
  }

  /** Forgets an address that a hub has named, if there are too many. Not the current one. */
  private makeRoom(): void {
    if (this.all.length - this.given < MOST_LEARNED) {
      return;
    }
    const oldest = this.at === this.given ? this.given + 1 : this.given;
    this.all.splice(oldest, 1);
    if (this.at > oldest) {
      this.at -= 1;
    }
  }
}

/** Whether an address is of a hub with TLS. */
export function isOfTls(address: string): boolean {
  return address.startsWith("https://") || address.startsWith("wss://");
}

// How long to wait before the next try: exponential, with full jitter, so that clients that failed together do not try again
// together. Owns the one rule by which this client waits. It knows no clock. Pure.

/** Gives numbers from 0 up to, and without, 1. */
export type Random = () => number;

/** Doubled this often, a millisecond is longer than any wait. */
const MOST_DOUBLINGS = 31;

/** The waits between tries of one thing that fails: random, from nothing to a ceiling that doubles. In milliseconds. */
export class Backoff {
  private tries = 0;

  constructor(
    private readonly shortest: number,
    private readonly longest: number,
    private readonly random: Random,
  ) {}

  /** How long to wait now; with another longest wait, this once, if one is given. */
  next(longest = this.longest): number {
    const ceiling = Math.min(this.shortest * 2 ** Math.min(this.tries, MOST_DOUBLINGS), longest);
    this.tries += 1;
    return ceiling * this.random();
  }

  /** It worked: the next failure is the first again. */
  reset(): void {
    this.tries = 0;
  }
}

/** Puts a list in random order, in place. */
export function shuffle<T>(all: T[], random: Random): void {
  for (let at = all.length - 1; at > 0; at -= 1) {
    const other = Math.floor(random() * (at + 1));
    [all[at], all[other]] = [all[other] as T, all[at] as T];
  }
}

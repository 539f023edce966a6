// The wait between two attempts: rule 2 of clients/SPEC.md. All times are in milliseconds.

const [SHORTEST, LONGEST] = [100, 5_000];
const LASTING = 10_000; // a session that was up for this long forgets the failures before it

/** Full jitter, or what the hub asks for if that is longer. */
export class Backoff {
  #most = SHORTEST;
  #upSince = Infinity;

  /** A session came up. */
  up() {
    this.#upSince = performance.now();
  }

  next(asked) {
    const most = performance.now() - this.#upSince >= LASTING ? SHORTEST : this.#most;
    this.#most = Math.min(2 * most, LONGEST);
    this.#upSince = Infinity;
    return Math.max(asked, Math.random() * most);
  }
}

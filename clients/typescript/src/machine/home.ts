// Where a member of a group has what it holds: in the last session, or in one before. Pure.
//
// A hub keeps the leases of a lost session for a while, under the name of that session. The next one may be lost, too, before
// every member is open in it; then those that are not are still found by the older name alone, and so are those that came
// back in between. One that is new to a session is found by the name of that session alone.

/** What one member knows of it. */
export class Home {
  /** A hub was asked before. It may know the member, although nothing has come since. */
  wasAsked = false;
  /** It was lost with a session, and no hub has answered it since. */
  private isAway = false;
  /** In this session it is open, and had nothing to come back to. */
  private isNew = false;

  /** It is open. `isBack` is true if it has what it held before. */
  found(isBack: boolean): void {
    this.isAway = false;
    this.isNew = !isBack;
  }

  /** It has ended, and holds nothing. */
  left(): void {
    this.isAway = false;
    this.isNew = false;
  }

  /** Its session is lost. */
  lost(): void {
    this.isAway = true;
    this.isNew = false;
  }

  /**
   * Whether these are found by the name of the session that is lost now. Those that were new to it are found by that name
   * alone, and those that were not open in it yet by the older one alone; where there are both, the new ones have more.
   */
  static isHere(all: Iterable<Home>): boolean {
    let isAnyAway = false;
    for (const one of all) {
      if (one.isNew) {
        return true;
      }
      isAnyAway ||= one.isAway;
    }
    return !isAnyAway;
  }
}

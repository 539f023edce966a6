// Where a subscription that reads a stream by itself is: how far everything has come, and how far everything is done. Pure.
//
// A session goes on behind what has come, because that is still in hand here and comes to the application from here. A
// program that is started again goes on behind what is done. The place never passes a batch that was dropped and is not
// done: it would be lost to the next run.

/** Batches that came and are not done are remembered one by one up to this many; with more, the latest go together. */
export const MOST_OPEN = 4096;

/** Batches that follow each other and count as done together: usually one. */
interface Open {
  readonly first: number;
  last: number;
  /** How many of them are not done. */
  left: number;
  /** Where the place is when these, and all before them, are done. */
  token: string;
}

/** The place of one subscription. */
export class Place {
  /** Behind all that has come: where the next session goes on. */
  reached: string | undefined;
  /** Behind all that is done: where the next run of the program would go on. */
  done: string | undefined;
  /** Batches that came and do not count as done yet, the oldest first. */
  private open: Open[] = [];
  private next = 0;
  /** A batch was dropped without being done: the place stays before it. */
  private isStuck = false;

  /** Of a subscription that goes on from an earlier run, if there is a token. */
  constructor(token?: string) {
    this.reached = token;
    this.done = token;
  }

  get openCount(): number {
    return this.open.length;
  }

  /** A batch came. Its number is for `finish`, which wants to hear of each once. */
  arrived(token: string): number {
    const number = this.next;
    this.next += 1;
    this.reached = token;
    if (this.isStuck) {
      return number;
    }
    const last = this.open.at(-1);
    if (last !== undefined && this.open.length >= MOST_OPEN) {
      last.last = number;
      last.left += 1;
      last.token = token;
    } else {
      this.open.push({ first: number, last: number, left: 1, token });
    }
    return number;
  }

  /** Events were passed over. That counts once nothing is in hand. */
  passed(token: string): void {
    if (token === "") {
      return;
    }
    this.reached = token;
    if (this.isStuck) {
      return;
    }
    const last = this.open.at(-1);
    if (last !== undefined) {
      last.token = token;
    } else {
      this.done = token;
    }
  }

  /** A batch is done. */
  finish(number: number): void {
    const at = this.find(number);
    const open = this.open[at];
    if (open === undefined) {
      return;
    }
    open.left = Math.max(open.left - 1, 0);
    if (open.left > 0) {
      return;
    }
    // Of those that are done and follow each other the last one says where the place is: one that is never done does not
    // make a list of all that come after it.
    if (this.open[at + 1]?.left === 0) {
      this.open.splice(at, 1);
    }
    if (this.open[at - 1]?.left === 0) {
      this.open.splice(at - 1, 1);
    }
    while (this.open[0]?.left === 0) {
      this.done = (this.open.shift() as Open).token;
    }
  }

  /** A batch was dropped. The place stays before it, unless it is done; nothing behind it has to be remembered. */
  dropBatch(number: number): void {
    const at = this.find(number);
    const open = this.open[at];
    if (open !== undefined && open.left > 0) {
      this.open.length = at;
      this.isStuck = true;
    }
  }

  private find(number: number): number {
    let [low, high] = [0, this.open.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.open[middle] as Open).last < number) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return (this.open[low]?.first ?? Infinity) <= number ? low : -1;
  }
}

// A set of numbers in order, to which mostly larger ones are added and from which mostly the smallest are removed. Pure.

/** Numbers, ascending. */
export class Tickets implements Iterable<number> {
  private all: number[] = [];
  /** What is before this was removed. */
  private head = 0;

  first(): number | undefined {
    return this.all[this.head];
  }

  add(ticket: number): void {
    const last = this.all.at(-1);
    if (last === undefined || last < ticket || this.head === this.all.length) {
      this.all.push(ticket);
      return;
    }
    const at = this.find(ticket);
    if (this.all[at] === ticket) {
      return;
    }
    if (at === this.head && at > 0) {
      this.head -= 1;
      this.all[this.head] = ticket;
    } else {
      this.all.splice(at, 0, ticket);
    }
  }

  remove(ticket: number): void {
    const at = this.find(ticket);
    if (this.all[at] !== ticket) {
      return;
    }
    if (at !== this.head) {
      this.all.splice(at, 1);
      return;
    }
    this.head += 1;
    if (this.head === this.all.length || this.head >= 1024) {
      this.all = this.all.slice(this.head);
      this.head = 0;
    }
  }

  *[Symbol.iterator](): Iterator<number> {
    for (let at = this.head; at < this.all.length; at += 1) {
      yield this.all[at] as number;
    }
  }

  /** Where a number is, or would be. */
  private find(ticket: number): number {
    let [low, high] = [this.head, this.all.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.all[middle] as number) < ticket) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}

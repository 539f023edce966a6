// Points in time, each of something that has an id, the earliest first. Pure.

interface Timed {
  readonly at: number;
  readonly id: number;
}

/** A binary heap. Entries are never taken out of its middle: whoever reads it knows which are stale. */
export class Heap {
  private all: Timed[] = [];

  get size(): number {
    return this.all.length;
  }

  first(): Timed | undefined {
    return this.all[0];
  }

  push(at: number, id: number): void {
    const { all } = this;
    let hole = all.length;
    all.push({ at, id });
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if ((all[parent] as Timed).at <= at) {
        break;
      }
      all[hole] = all[parent] as Timed;
      hole = parent;
    }
    all[hole] = { at, id };
  }

  pop(): Timed | undefined {
    const { all } = this;
    const first = all[0];
    const last = all.pop();
    if (first === undefined || last === undefined || all.length === 0) {
      return first;
    }
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= all.length) {
        break;
      }
      if (child + 1 < all.length && (all[child + 1] as Timed).at < (all[child] as Timed).at) {
        child += 1;
      }
      if ((all[child] as Timed).at >= last.at) {
        break;
      }
      all[hole] = all[child] as Timed;
      hole = child;
    }
    all[hole] = last;
    return first;
  }

  /** Keeps only these. */
  retain(keeps: (id: number, at: number) => boolean): void {
    const kept = this.all.filter(({ at, id }) => keeps(id, at));
    // A sorted list is a heap.
    this.all = kept.sort((one, other) => one.at - other.at);
  }

  clear(): void {
    this.all = [];
  }
}

// What one subscription holds, and what the hub may still send it: together never more than its window. Pure.
//
// The hub counts a unit only from the first grant that names it. So the first grant of a session names both, or there is
// none yet and the hub sends nothing. After that credit goes back in large pieces: when the hub may send no more than what
// can be granted.

/** A count of events, and their bytes. Also what one subscription may hold. */
export interface Size {
  readonly events: number;
  readonly bytes: number;
}

export const NOTHING: Size = { events: 0, bytes: 0 };

/** The books of one subscription. */
export class Ledger {
  private heldEvents = 0;
  private heldBytes = 0;
  /** Granted in this session, and not used. The bytes may be overdrawn by one event. */
  private grantedEvents = 0;
  private grantedBytes = 0;
  /** The hub counts. */
  private isCounted = false;

  constructor(private readonly window: Size) {}

  /** A session begins: what to ask for at first. Even nothing is explicit credit. */
  begin(): Size {
    this.grantedEvents = 0;
    this.grantedBytes = 0;
    this.isCounted = false;
    return this.grant() ?? NOTHING;
  }

  /** What to grant now, if it is time. */
  grant(): Size | undefined {
    const events = Math.max(this.window.events - this.heldEvents - this.grantedEvents, 0);
    const bytes = Math.max(this.window.bytes - this.heldBytes - this.grantedBytes, 0);
    const isDue = this.isCounted
      ? (events > 0 && events >= this.grantedEvents) || (bytes > 0 && bytes >= this.grantedBytes)
      : events > 0 && bytes > 0;
    if (!isDue) {
      return undefined;
    }
    this.grantedEvents += events;
    this.grantedBytes += bytes;
    this.isCounted = true;
    return { events, bytes };
  }

  /** Events came. */
  arrived(events: number, bytes: number): void {
    this.grantedEvents -= events;
    this.grantedBytes -= bytes;
    this.heldEvents += events;
    this.heldBytes += bytes;
  }

  /** Events are out of hand. */
  returned(events: number, bytes: number): void {
    this.heldEvents -= events;
    this.heldBytes -= bytes;
  }

  held(): Size {
    return { events: this.heldEvents, bytes: this.heldBytes };
  }

  /** The hub may send nothing more until something is out of hand. */
  isFull(): boolean {
    return this.heldEvents >= this.window.events || this.heldBytes >= this.window.bytes;
  }
}

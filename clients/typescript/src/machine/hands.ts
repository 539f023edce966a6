// What a member of a group holds, and what was said of it: from the delivery of an event to the hub's answer that its
// acknowledgement is stored. Pure.
//
// An event is in one hand, however often it is delivered. If it comes again while the application still works on it, or after
// the application has settled it, the application does not get it a second time: its word holds for the new lease. The
// exception is a caller who was told that the lease is lost: it may count on the event to come again.
//
// Words wait here while there is no session. All of it is bounded: words by the events that were held, and what is owed by a
// number.

import { failure, ofStatus, type SwitchyardError } from "../error.js";
import { duration, exact, type WireAckResult, type WireAcknowledge } from "../wire.js";
import { NOTHING, type Size } from "./credit.js";
import type { News } from "./news.js";
import { Owed } from "./owed.js";
import { acknowledgement, isAlike, isFinal, type Verdict } from "./verdict.js";

/** The most sequences in one command; a hub takes ten times as many. */
export const MOST_SEQUENCES = 1000;
/** The most sequences that a member may name when it comes back: as many as a hub ever lets one have. */
export const MOST_NAMED = 100_000;
/** Extensions that were written and are not answered: with more, those that wait go together. */
export const MOST_EXTENDING = 64;
/** Sequences of lost leases that are kept to be told; further ones are only counted. */
export const MOST_LOST = 1000;
/** How long to wait before words are repeated that the hub could not store. */
const REPEAT_DELAY = 1000;

/** An event in hand. */
interface Hand {
  /** Tells it from another time that the event was in hand. */
  readonly copy: number;
  readonly bytes: number;
  /** The application has it. Otherwise it waits to be taken. */
  isTaken: boolean;
}

/** A verdict that the hub has not answered. */
interface Word {
  readonly number: number;
  readonly sequence: bigint;
  readonly verdict: Verdict;
  /** Whoever waits for the answer. */
  readonly ticket: number | undefined;
}

interface Extending {
  readonly sequences: bigint[];
  readonly time: number | undefined;
}

/** The leases that were lost since somebody asked. */
export interface Lost {
  readonly sequences: bigint[];
  readonly count: number;
}

/** All that one member holds. */
export class Hands {
  private readonly held = new Map<bigint, Hand>();
  /** Words to be written, in order. */
  private waiting: Word[] = [];
  /** Words that were written in this session, by request. */
  private readonly written = new Map<number, Word[]>();
  /** The numbers of words that are not answered. */
  private readonly numbers = new Set<number>();
  /** How many final words there are of a sequence that are not answered. */
  private readonly settling = new Map<bigint, number>();
  /** Those of them that came again in this session: what was said of them holds for the new lease, too. */
  private readonly cameAgain = new Set<bigint>();
  /** Leases to extend, and for how long. */
  private readonly extends = new Map<bigint, number | undefined>();
  /** Requests that extend and are not answered. */
  private readonly extending = new Map<number, Extending>();
  private readonly owed = new Owed();
  private lost: bigint[] = [];
  private lostCount = 0;
  /** Numbers copies and words. */
  private next = 0;
  /** Nothing is written before this. */
  private notBefore = 0;

  /** An event came. `undefined` when it is in hand already, or settled: then it is not for the application. */
  arrive(sequence: bigint, bytes: number): number | undefined {
    if (this.held.has(sequence)) {
      return undefined;
    }
    if (this.settling.has(sequence)) {
      this.cameAgain.add(sequence);
      return undefined;
    }
    const verdict = this.owed.take(sequence);
    if (verdict !== undefined) {
      this.say(sequence, verdict, undefined);
      return undefined;
    }
    // It comes again, which is all that a NACK asks for. One that was written is the hub's business.
    if (this.waiting.some((word) => word.sequence === sequence)) {
      this.waiting = this.waiting.filter((word) => word.sequence !== sequence || !this.numbers.delete(word.number));
    }
    this.next += 1;
    this.held.set(sequence, { copy: this.next, bytes, isTaken: false });
    return this.next;
  }

  /** The application takes an event. */
  taken(sequence: bigint): void {
    const hand = this.held.get(sequence);
    if (hand !== undefined) {
      hand.isTaken = true;
    }
  }

  /** The application has settled an event: how many bytes that frees. `undefined` when this copy is no longer in hand. */
  settle(sequence: bigint, copy: number, verdict: Verdict, ticket: number | undefined): number | undefined {
    const bytes = this.letGo(sequence, copy);
    if (bytes !== undefined) {
      this.say(sequence, verdict, ticket);
    }
    return bytes;
  }

  /** The application has dropped an event and said nothing. Its lease runs out. */
  letGo(sequence: bigint, copy: number): number | undefined {
    const hand = this.held.get(sequence);
    if (hand?.copy !== copy) {
      return undefined;
    }
    this.extends.delete(sequence);
    this.held.delete(sequence);
    return hand.bytes;
  }

  /** The application wants to keep an event for longer. */
  extend(sequence: bigint, copy: number, time: number | undefined): void {
    if (this.held.get(sequence)?.copy === copy) {
      this.extends.set(sequence, time);
    }
  }

  private say(sequence: bigint, verdict: Verdict, ticket: number | undefined): void {
    this.next += 1;
    this.numbers.add(this.next);
    if (isFinal(verdict)) {
      this.settling.set(sequence, (this.settling.get(sequence) ?? 0) + 1);
    }
    this.waiting.push({ number: this.next, sequence, verdict, ticket });
  }

  /** What to write next, as this request, if there is anything. */
  write(now: number, request: number): WireAcknowledge | undefined {
    if (now < this.notBefore) {
      return undefined;
    }
    const first = this.waiting[0];
    if (first !== undefined) {
      let alike = 1;
      const most = Math.min(this.waiting.length, MOST_SEQUENCES);
      while (alike < most && isAlike((this.waiting[alike] as Word).verdict, first.verdict)) {
        alike += 1;
      }
      const words = this.waiting.splice(0, alike);
      this.written.set(request, words);
      return { sequences: words.map((word) => String(word.sequence)), ...acknowledgement(first.verdict) };
    }
    return this.writeExtension(request);
  }

  private writeExtension(request: number): WireAcknowledge | undefined {
    if (this.extends.size === 0 || this.extending.size >= MOST_EXTENDING) {
      return undefined;
    }
    const [time] = this.extends.values();
    const sequences: bigint[] = [];
    for (const [sequence, other] of this.extends) {
      if (other === time && sequences.length < MOST_SEQUENCES) {
        sequences.push(sequence);
        this.extends.delete(sequence);
      }
    }
    this.extending.set(request, { sequences, time });
    const told: WireAcknowledge = { sequences: sequences.map(String), outcome: "ACK_OUTCOME_EXTEND" };
    return time === undefined ? told : { ...told, delay: duration(time) };
  }

  /** Some words were not written in this session, whether or not they must wait. */
  hasWaitingWords(): boolean {
    return this.waiting.length > 0;
  }

  /** When something is to be written that must wait until then. */
  due(now: number): number | undefined {
    const waits = this.notBefore > now && (this.waiting.length > 0 || this.extends.size > 0);
    return waits ? this.notBefore : undefined;
  }

  /** The hub has answered. */
  answered(now: number, request: number, results: readonly WireAckResult[], news: News[]): void {
    if (this.extending.delete(request)) {
      return;
    }
    const words = this.written.get(request);
    if (words === undefined) {
      return;
    }
    this.written.delete(request);
    const answers = new Map(results.map((result) => [exact(result.sequence), result]));
    const later: Word[] = [];
    const atOnce: Word[] = [];
    for (const word of words) {
      const answer = answers.get(word.sequence);
      answers.delete(word.sequence);
      if (answer === undefined) {
        // The hub has not answered it, against the contract.
        later.push(word);
      } else if (answer.status === undefined) {
        this.stored(word, news);
      } else {
        const error = ofStatus("leaseLost", answer.status);
        if (error.retryable) {
          later.push(word);
        } else if (isFinal(word.verdict) && this.cameAgain.delete(word.sequence)) {
          // It was about the lease before. Nobody has the event, and it does not come a third time by itself.
          atOnce.push(word);
        } else {
          this.fail(word, error, news);
        }
      }
    }
    this.waiting = [...atOnce, ...this.waiting];
    this.repeat(now, later);
  }

  /** The whole command was refused. */
  refused(now: number, request: number, error: SwitchyardError, news: News[]): void {
    this.extending.delete(request);
    const words = this.written.get(request) ?? [];
    this.written.delete(request);
    // The subscription has just ended, which comes as a frame of its own.
    if (error.retryable || error.reason === "SUBSCRIPTION_NOT_FOUND") {
      this.repeat(now, words);
      return;
    }
    for (const word of words) {
      this.fail(word, error, news);
    }
  }

  private repeat(now: number, words: Word[]): void {
    if (words.length > 0) {
      this.notBefore = now + REPEAT_DELAY;
      this.waiting = [...words, ...this.waiting];
    }
  }

  private stored(word: Word, news: News[]): void {
    this.resolve(word);
    if (word.ticket !== undefined) {
      news.push({ of: "settled", ticket: word.ticket, error: undefined });
    }
  }

  private fail(word: Word, error: SwitchyardError, news: News[]): void {
    this.resolve(word);
    if (word.ticket !== undefined) {
      news.push({ of: "settled", ticket: word.ticket, error });
      return;
    }
    // The event comes again in any case.
    if (!isFinal(word.verdict)) {
      return;
    }
    this.lostCount += 1;
    if (this.lost.length < MOST_LOST) {
      this.lost.push(word.sequence);
    }
    this.owed.put(word.sequence, word.verdict);
  }

  private resolve(word: Word): void {
    this.numbers.delete(word.number);
    const left = this.settling.get(word.sequence);
    if (left === undefined || !isFinal(word.verdict)) {
      return;
    }
    if (left > 1) {
      this.settling.set(word.sequence, left - 1);
    } else {
      this.settling.delete(word.sequence);
      this.cameAgain.delete(word.sequence);
    }
  }

  /**
   * The session is lost. What was written and not answered is to be written again, in order; what was not taken comes again,
   * or goes to others: how much that is.
   */
  sessionLost(news: News[]): Size {
    const words = [...this.written.values()].flat().sort((one, other) => other.number - one.number);
    this.written.clear();
    const later = new Set([...this.held.keys(), ...this.waiting.map((word) => word.sequence)]);
    const again: Word[] = [];
    for (const word of words) {
      const isLater = later.has(word.sequence);
      later.add(word.sequence);
      if (isLater && !isFinal(word.verdict)) {
        // It came again since, so the NACK is stored. Said once more it would be another failure.
        this.stored(word, news);
      } else {
        again.push(word);
      }
    }
    this.waiting = [...again.reverse(), ...this.waiting];
    // What was said last of a lease holds.
    const extensions = [...this.extending.entries()].sort(([one], [other]) => other - one);
    this.extending.clear();
    for (const [, { sequences, time }] of extensions) {
      for (const sequence of sequences) {
        if (this.held.get(sequence)?.isTaken === true && !this.extends.has(sequence)) {
          this.extends.set(sequence, time);
        }
      }
    }
    this.cameAgain.clear();
    this.notBefore = 0;
    return this.forgetUntaken();
  }

  /** Events that the application has not taken are not for it any more: how much that is. */
  forgetUntaken(): Size {
    let [events, bytes] = [0, 0];
    for (const [sequence, hand] of this.held) {
      if (!hand.isTaken) {
        events += 1;
        bytes += hand.bytes;
        this.held.delete(sequence);
      }
    }
    return { events, bytes };
  }

  /** Events that the application has are not in its hands any more: how much that is. */
  release(): Size {
    this.extends.clear();
    let size: Size = NOTHING;
    for (const hand of this.held.values()) {
      size = { events: size.events + 1, bytes: size.bytes + hand.bytes };
    }
    this.held.clear();
    return size;
  }

  /**
   * The hub says which leases this member does not have any more. What was said of those cannot be stored, unless their
   * events come again.
   */
  leasesLost(sequences: readonly bigint[], news: News[]): void {
    if (sequences.length === 0) {
      return;
    }
    const lost = new Set(sequences);
    for (const sequence of sequences) {
      this.extends.delete(sequence);
    }
    const gone = this.waiting.filter((word) => lost.has(word.sequence));
    this.waiting = this.waiting.filter((word) => !lost.has(word.sequence));
    for (const word of gone) {
      this.fail(word, leaseLost(), news);
    }
  }

  /** Nothing comes and goes any more: everything that is unanswered has failed. */
  giveUp(error: SwitchyardError, news: News[]): void {
    this.sessionLost(news);
    const words = this.waiting;
    this.waiting = [];
    for (const word of words) {
      this.fail(word, error, news);
    }
    this.held.clear();
    this.extends.clear();
  }

  /**
   * The sequences whose leases this member wants to keep when it comes back, ascending: what the application has, and what it
   * has said something of that is not answered. Of more than a hub lets one have, those are named of which something was
   * said; the others come again, and are still in hand.
   */
  heldSequences(): bigint[] {
    const held = [...this.held].filter(([, hand]) => hand.isTaken).map(([sequence]) => sequence);
    const named = new Set<bigint>();
    for (const sequence of [...this.waiting.map((word) => word.sequence), ...ascending(held)]) {
      if (named.size === MOST_NAMED) {
        break;
      }
      named.add(sequence);
    }
    return ascending([...named]);
  }

  /** How many events the application has, or is to take. */
  get inHand(): number {
    return this.held.size;
  }

  /** How many words are not answered. */
  get unanswered(): number {
    return this.numbers.size;
  }

  /** A mark behind all that was said so far. */
  mark(): number {
    return this.next;
  }

  /** Whether everything before a mark is answered. */
  isSettled(mark: number): boolean {
    // In the order in which they were said.
    const [first] = this.numbers;
    return first === undefined || first > mark;
  }

  /** The leases that were lost. Whoever is told may count on the events to come again. */
  takeLost(): Lost {
    const lost = { sequences: this.lost, count: this.lostCount };
    this.lost = [];
    this.lostCount = 0;
    if (lost.count > 0) {
      this.owed.clear();
    }
    return lost;
  }
}

function ascending(sequences: bigint[]): bigint[] {
  return sequences.sort((one, other) => (one < other ? -1 : one > other ? 1 : 0));
}

/** Why what was said of events could not be stored, where no hub says it. */
export function leaseLost(): SwitchyardError {
  const text = "the session was lost, and with it the lease: the group delivers the event again";
  return failure("leaseLost", "FAILED_PRECONDITION", "LEASE_EXPIRED", text);
}

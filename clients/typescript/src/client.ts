// The handle of a client: what its user begins, and what it can know.

import { Core } from "./core.js";
import { Driver } from "./driver.js";
import { failure, invalid, SwitchyardError } from "./error.js";
import { encode, type NewEvent, type Sender } from "./event.js";
import { newId } from "./ids.js";
import { Links } from "./link.js";
import type { NewPublish } from "./machine/entry.js";
import { Machine } from "./machine/machine.js";
import type { Outcome } from "./machine/news.js";
import { checkedOptions, type Options } from "./options.js";
import type { Spec } from "./spec.js";
import type { DrainMode, Left, Published, Stats, Status } from "./state.js";
import { Subscription } from "./subscription.js";
import type { WirePrecondition } from "./wire.js";
import { type Handler, work, type WorkerSpec } from "./worker.js";

/** How long a publish is tried, unless told otherwise. Shorter than the dedupe window of a stream that has the default. */
const PUBLISH_DEADLINE = 30_000;
/** How long a client that is closed may take to flush what was begun. */
const LAST_FLUSH = 5000;

/** How an event is published. */
export interface PublishOptions {
  /**
   * How long to try, in milliseconds, waiting for room in the queue included. Default: 30 s. It must be shorter than the
   * dedupe window of the stream, or a late try could store the event twice.
   */
  readonly timeoutMs?: number;
  /** Only if this is the latest sequence of the stream; 0 if nothing was ever stored in it. */
  readonly ifLastSequence?: bigint | number;
  /** Only if this is the latest sequence of the topic in its stream; 0 if the stream has no event of it. */
  readonly ifLastTopicSequence?: bigint | number;
  /** Tries again even if no stream holds the topic and the event may have been delivered: then it can come twice. */
  readonly retryLive?: boolean;
}

/** A client of Switchyard that comes back by itself. Nothing happens until it is run: see `connect`. */
export class Client {
  private readonly core: Core;
  private readonly links: Links;
  private readonly sender: Sender;

  /** Fails where a setting can never work. */
  constructor(options: Options = {}) {
    const settings = checkedOptions(options);
    const { addresses, name, labels, source, renews, heartbeat, queue, logger } = settings;
    const machine = new Machine({
      name,
      labels,
      heartbeat,
      addresses,
      hasSource: renews,
      returnsWhenTerminated: options.returnsWhenTerminated === true,
      most: queue,
      random: Math.random,
    });
    this.core = new Core(machine, logger);
    this.links = new Links(settings.webSocket, settings.fetch, settings.transport, source);
    this.sender = { name, newId, traceContext: options.traceContext };
    if (options.onState !== undefined) {
      this.core.onState(options.onState);
    }
  }

  /**
   * Runs the client, until it is drained or has failed for good, which is what it then fails with. Only one may run it. This is
   * all of the client that runs: one connection, and one timer.
   */
  async run(): Promise<void> {
    const error = await new Driver(this.core, this.links).over;
    if (error !== undefined) {
      throw error;
    }
  }

  /** What the client is doing. */
  get status(): Status {
    return this.core.machine.status;
  }

  /** What it has counted, and has in hand now. */
  get stats(): Stats {
    return this.core.machine.stats(this.core.now());
  }

  /** Calls this on every change of state, until what it gives is called. */
  on(event: "state", hears: (status: Status) => void): () => void {
    if (event !== "state") {
      throw invalid("event", "must be state");
    }
    return this.core.onState(hears);
  }

  /**
   * Subscribes to live events or to a stream. It is opened as soon as there is a session; what the hub says of it comes with
   * what is next. `ready` of what it gives waits until it is open.
   */
  subscribe(spec: Spec): Subscription {
    return new Subscription(this.core, spec);
  }

  /**
   * Publishes an event. Resolves with the hub's answer, which is the only thing that counts as published. Fails with an error of
   * the kind `refused` if it was not published, and `unknown` if nobody knows.
   *
   * What was lost with a session is written again with the same id, in order, until the deadline. If the queue is full, it
   * waits for room, in the order of the calls.
   */
  async publish(event: NewEvent, options: PublishOptions = {}): Promise<Published> {
    const { answer } = await this.enqueue(event, options);
    return answer;
  }

  /** Publishes events in one call: what becomes of each, in their order. With a condition all of them or none. */
  async publishAll(
    events: readonly NewEvent[],
    options: PublishOptions = {},
  ): Promise<(Published | SwitchyardError)[]> {
    const { answer } = await this.core.publishSoon(this.call(events, options));
    return answer;
  }

  /**
   * Waits for room in the queue alone, and not for the answer: for publishers that have much under way. `answer` fails like
   * `publish`.
   */
  async enqueue(event: NewEvent, options: PublishOptions = {}): Promise<{ readonly answer: Promise<Published> }> {
    const { answer } = await this.core.publishSoon(this.call([event], options));
    const outcome = one(answer);
    // Whoever does not wait for it does not want to know.
    outcome.catch(() => undefined);
    return { answer: outcome };
  }

  /** Publishes an event if there is room in the queue now: fails with the reason `QUEUE_FULL` if there is none. */
  async tryPublish(event: NewEvent, options: PublishOptions = {}): Promise<Published> {
    const answer = this.core.publish(this.call([event], options));
    if (answer === undefined) {
      throw failure("refused", "RESOURCE_EXHAUSTED", "QUEUE_FULL", "the queue of publishes is full");
    }
    return one(answer);
  }

  private call(events: readonly NewEvent[], options: PublishOptions): NewPublish {
    if (events.length === 0) {
      throw invalid("events", "are missing");
    }
    return {
      events: events.map((event) => encode(event, this.sender)),
      precondition: preconditionOf(options),
      deadline: this.core.now() + (options.timeoutMs ?? PUBLISH_DEADLINE),
      retryLive: options.retryLive === true,
    };
  }

  /**
   * Works on the events of a group: gives each to `handler`, at most `concurrency` at a time, and acknowledges it by how that
   * ends. As long as a handler runs, the lease on its event is extended. Resolves when the client is drained and every handler
   * is done; fails when the subscription ends for good.
   */
  runWorker(spec: WorkerSpec, handler: Handler): Promise<void> {
    return work((checked) => this.subscribe(checked), spec, handler);
  }

  /**
   * Ends the client in order: no subscription gets anything new, what was begun is finished or given back, and
   * acknowledgements and publishes are flushed. Resolves when the client is over, at the latest after the timeout, with what
   * was left. Fails when the client has failed.
   */
  async drain(options: { readonly timeoutMs?: number; readonly mode?: DrainMode } = {}): Promise<Left> {
    const { timeoutMs = LAST_FLUSH, mode = "finish" } = options;
    const over = this.core.over();
    this.core.call((machine, now) => machine.drain(now, mode, timeoutMs));
    const error = await over;
    if (error !== undefined) {
      throw error;
    }
    return this.core.machine.left;
  }

  /** Ends the client in order, within 5 s, and gives back what is in hand. Never fails. */
  async close(): Promise<void> {
    await this.drain({ mode: "release" }).catch(() => undefined);
  }
}

/** Makes a client and runs it. Its state says when it has failed, and so do all calls that are made of it. */
export function connect(options: Options = {}): Client {
  const client = new Client(options);
  client.run().catch(() => undefined);
  return client;
}

/** The only result of a call with one event. */
async function one(answer: Promise<Outcome[]>): Promise<Published> {
  const [outcome] = await answer;
  if (outcome === undefined || outcome instanceof SwitchyardError) {
    throw outcome ?? failure("unknown", "UNKNOWN", "NO_ANSWER", "the hub did not answer");
  }
  return outcome;
}

function preconditionOf({ ifLastSequence, ifLastTopicSequence }: PublishOptions): WirePrecondition | undefined {
  if (ifLastSequence !== undefined && ifLastTopicSequence !== undefined) {
    throw invalid("ifLastSequence", "cannot go with ifLastTopicSequence");
  }
  if (ifLastSequence !== undefined) {
    return { lastSequence: String(ifLastSequence) };
  }
  return ifLastTopicSequence === undefined ? undefined : { lastTopicSequence: String(ifLastTopicSequence) };
}

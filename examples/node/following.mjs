// Subscriptions that outlive their sessions: rules 5 and 13 of clients/SPEC.md, in small. Left to a full client:
// several addresses (3), windows in bytes (6), gaps of all kinds (8), extending leases (9), tokens that expire (12).

import { setTimeout as sleep } from 'node:timers/promises';
import { HEARTBEAT, session } from './session.mjs';
import { Backoff } from './waiting.mjs';

/** `table` is a map of specs by the ids of subscriptions; `on` has a function for each kind of frame to handle. */
export class Following {
  #stop = new AbortController();
  stopped = this.#stop.signal;
  #backoff = new Backoff();
  #busy = Promise.resolve();
  #sessionId = '';
  #call;

  constructor(server, name, table, on) {
    Object.assign(this, { server, name, table, on });
  }

  send = (command) => this.#call.write({ requestId: 1, ...command });

  /** Returns when every subscription has ended as asked, or after Ctrl-C; the second one ends the program at once. */
  async follow() {
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => this.#leave());
    while (this.table.size && !this.stopped.aborted) {
      const lost = await session(this.server, (call) => this.#begin(call), (frame) => (this.#busy = this.#take(frame)));
      if (!this.table.size || this.stopped.aborted) return;
      const wait = this.#backoff.next(lost.delay);
      console.error(`${lost.message}; again in ${(wait / 1000).toFixed(1)} s`);
      await sleep(wait, undefined, { signal: this.stopped }).catch(() => {});
    }
  }

  #begin(call) {
    this.#call = call;
    const heartbeatInterval = { seconds: HEARTBEAT };
    this.send({ hello: { clientName: this.name, heartbeatInterval, previousSessionId: this.#sessionId } });
    for (const [subscriptionId, spec] of this.table) this.send({ subscribe: { subscriptionId, spec } });
  }

  /** Ends the subscriptions, once the frame at hand is handled. */
  async #leave() {
    this.#stop.abort();
    await this.#busy;
    for (const subscriptionId of this.table.keys()) this.send({ unsubscribe: { subscriptionId } });
  }

  async #take({ frame, welcome, ended, ...others }) {
    if (welcome) {
      this.#sessionId = welcome.sessionId;
      this.#backoff.up();
    } else if (ended && !ended.status?.code) {
      this.table.delete(ended.subscriptionId);
      if (!this.table.size) this.#call.end(); // the hub ends the session
    } else await this.on[frame]?.(others[frame]);
  }
}

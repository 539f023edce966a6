// Works on the events of a stream as a member of a group, and acknowledges each one once it is done.

import { describe } from './contract.mjs';
import { Following } from './following.mjs';
import { main } from './main.mjs';

const [CREDIT, MOST_DONE] = [8, 1000]; // events in hand, of which more would only wait; and events in `done`

let worker;
const done = new Set(); // and not confirmed by the hub: what comes again is only acknowledged again

/** Prints a text. If it throws, the event comes again. An event may be done twice: see `redelivered`. */
async function work({ event: { topic, text, payload }, sequence }) {
  if (payload === 'data') throw new Error('the payload is no text');
  console.log(sequence, topic, text ?? '');
}

/** Works on an event, unless it is done, and gives what is to be said of it. */
async function outcome(received) {
  const { sequence, attempt } = received;
  try {
    if (!done.has(sequence)) await work(received);
    done.add(sequence);
    if (done.size > MOST_DONE) done.delete(Math.min(...done));
    return { sequences: [sequence] };
  } catch ({ message }) {
    console.error(`${sequence}: attempt ${attempt} failed: ${message}`);
    const delay = { seconds: attempt }; // a little longer each time
    return { sequences: [sequence], outcome: 'ACK_OUTCOME_NACK', delay, reason: message.slice(0, 256) };
  }
}

const on = {
  subscribed({ lostSequences }) {
    const leased = [...done].filter((sequence) => !lostSequences.includes(sequence));
    if (leased.length) worker.send({ acknowledge: { subscriptionId: 1, sequences: leased } });
  },
  async events({ events }) {
    for (const received of events) {
      if (worker.stopped.aborted) return; // the others go to another member as soon as this one has left
      worker.send({ acknowledge: { subscriptionId: 1, ...(await outcome(received)) } });
      worker.send({ credit: { subscriptionId: 1, credit: { events: 1 } } });
    }
  },
  acknowledged({ results }) {
    for (const { sequence, status } of results) {
      if (status) console.error(`${sequence}: ${describe(status)}`);
      else done.delete(sequence);
    }
  },
};

await main('worker.mjs [--server HOST:PORT] STREAM GROUP', 2, async ({ server }, [stream, group]) => {
  const start = { preset: 'START_PRESET_EARLIEST' };
  const reattach = { get heldSequences() { return [...done]; } }; // read whenever a session begins
  const spec = { stream, group, start, ackMode: 'ACK_MODE_EXPLICIT', credit: { events: CREDIT }, reattach };
  worker = new Following(server, 'example-worker', new Map([[1, spec]]), on);
  await worker.follow();
});

// Subscribes to topics over one session and prints their events, or with --digest a digest of them at the end.

import { createHash } from 'node:crypto';
import { Following } from './following.mjs';
import { main } from './main.mjs';

/** What one subscription asks for, and what it got. FILTER#N ends it after N events. */
function subscription(argument, count) {
  const [filter, limit = count] = argument.split('#');
  if (!/^\d+$/.test(limit)) throw new Error(`not a number of events: ${limit}`);
  // The credit is automatic: the hub sends as fast as this program reads.
  return { spec: { filters: [filter], maxEvents: Number(limit) }, filter, events: 0, sha256: createHash('sha256') };
}

function take(subscription, { topic, payload, text = '', data }, digest) {
  const line = `${topic} ${payload === 'data' ? `<${data.length} bytes>` : text}\n`;
  subscription.events += 1;
  subscription.sha256.update(line);
  if (!digest) process.stdout.write(line);
}

const usage = 'subscribe.mjs [--server HOST:PORT] [--count N] [--digest] FILTER...';
const options = {
  count: { type: 'string', default: '0' }, // end after this many events of every filter
  digest: { type: 'boolean', default: false },
};
const program = async ({ server, count, digest }, filters) => {
  const subscriptions = new Map(filters.map((filter, i) => [i + 1, subscription(filter, count)]));
  const table = new Map([...subscriptions].map(([id, { spec }]) => [id, spec]));
  let opening = subscriptions.size;
  const on = {
    subscribed() {
      opening -= 1;
      if (opening === 0) console.error('ready');
      if (opening < 0) console.error('subscribed again: what was published meanwhile is missing');
    },
    events({ subscriptionId, events }) {
      const { spec } = subscriptions.get(subscriptionId);
      for (const { event } of events) take(subscriptions.get(subscriptionId), event, digest);
      if (!spec.maxEvents) return;
      spec.maxEvents -= events.length; // the rest, should it be opened again
      if (!spec.maxEvents) table.delete(subscriptionId);
    },
    gap({ subscriptionId, count: lost }) {
      throw new Error(`gap: ${subscriptions.get(subscriptionId).filter} lost ${lost} events`);
    },
  };
  await new Following(server, 'example-subscribe', table, on).follow();
  for (const { filter, events, sha256 } of digest ? subscriptions.values() : []) {
    console.log(JSON.stringify({ filter, events, sha256: sha256.digest('hex') }));
  }
};
await main(usage, 1, program, options);

// Subscribes to topics over one Session and prints their events, or with --digest a digest of them at the end.
//
//     node examples/node/subscribe.mjs 'greetings.*' 'stocks.>#10'

import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

// The stubs are made here, from the .proto files.
const definitions = loadSync('switchyard/v1/hub_service.proto', {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { HubService } = grpc.loadPackageDefinition(definitions).switchyard.v1;

/** What one subscription asks for, and what it got. FILTER#N ends it after N events. */
function subscription(argument, count) {
  const [filter, limit = count] = argument.split('#');
  if (!/^\d+$/.test(limit)) throw new Error(`not a number of events: ${limit}`);
  return { filter, maxEvents: Number(limit), events: 0, sha256: createHash('sha256') };
}

function take(subscription, { topic, payload, text = '', data }, digest) {
  const line = `${topic} ${payload === 'data' ? `<${data.length} bytes>` : text}\n`;
  subscription.events += 1;
  subscription.sha256.update(line);
  if (!digest) process.stdout.write(line);
}

/** Opens the subscriptions; when the last one has ended the hub ends the session. */
async function follow(session, subscriptions, digest) {
  for (const [i, { filter, maxEvents }] of subscriptions.entries()) {
    session.write({ requestId: i + 1, subscribe: { subscriptionId: i + 1, spec: { filters: [filter], maxEvents } } });
  }
  session.end(); // no more commands: the hub goes on delivering
  let opening = subscriptions.length;
  let running = subscriptions.length;
  for await (const { frame, events, gap, ended, error } of session) {
    if (frame === 'subscribed' && --opening === 0) console.error('ready');
    if (frame === 'draining') console.error('draining');
    if (frame === 'gap') throw new Error(`${subscriptions[gap.subscriptionId - 1].filter}: lost ${gap.count} events`);
    if (frame === 'events') {
      for (const { event } of events.events) take(subscriptions[events.subscriptionId - 1], event, digest);
    }
    if (frame === 'ended' || frame === 'error') {
      const status = error ?? ended.status;
      if (status?.code) throw new Error(`${frame}: ${grpc.status[status.code]}: ${status.message}`);
      running -= 1;
    }
  }
  if (running) throw new Error('the hub closed the session');
}

const options = {
  server: { type: 'string', default: '127.0.0.1:50051' },
  count: { type: 'string', default: '0' }, // end after so many events of every filter
  digest: { type: 'boolean', default: false },
};
try {
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (!positionals.length) throw new Error('usage: subscribe.mjs [--server HOST:PORT] [--count N] [--digest] FILTER...');
  const subscriptions = positionals.map((argument) => subscription(argument, values.count));
  const session = new HubService(values.server, grpc.credentials.createInsecure()).session();
  process.once('SIGINT', () => session.cancel());
  await follow(session, subscriptions, values.digest).catch((error) => {
    if (error.code !== grpc.status.CANCELLED) throw error; // else it was Ctrl-C
  });
  for (const { filter, events, sha256 } of values.digest ? subscriptions : []) {
    console.log(JSON.stringify({ filter, events, sha256: sha256.digest('hex') }));
  }
} catch (error) {
  console.error(error.details ? `no session with the hub: ${error.message}` : error.message);
  process.exit(1);
}

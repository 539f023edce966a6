// Publishes events to one topic: each TEXT is one event; without TEXT, each line of standard input is one.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import { connect, delayOf, describe, statusOf } from './contract.mjs';
import { batchesOf, linesOf } from './lines.mjs';
import { main } from './main.mjs';
import { Backoff } from './waiting.mjs';

const PATIENCE = 5_000; // milliseconds that one attempt may take
const UNKNOWN = ['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'INTERNAL', 'CANCELLED']; // perhaps published, perhaps not

/**
 * Publishes a batch, again and again until it is answered. The events have ids, so a stream stores them only once.
 * Without a stream they may be delivered twice: a full client asks the hub first (clients/SPEC.md, rule 10.6).
 */
async function answered(publish, events, timeout) {
  const backoff = new Backoff();
  for (const until = Date.now() + timeout; ; ) {
    try {
      return await publish({ events }, { deadline: Date.now() + PATIENCE });
    } catch (error) {
      const status = statusOf(error);
      const wait = backoff.next(delayOf(status));
      if (!UNKNOWN.includes(grpc.status[status.code]) || Date.now() + wait > until) {
        throw new Error(`publish failed: ${describe(status)}`);
      }
      await sleep(wait);
    }
  }
}

const usage = 'publish.mjs [--server HOST:PORT] [--timeout SECONDS] TOPIC [TEXT...]';
const options = { timeout: { type: 'string', default: '30' } }; // seconds for all attempts of a batch
const program = async ({ server, timeout }, [topic, ...texts]) => {
  const hub = connect(server);
  const publish = promisify(hub.publish.bind(hub));
  let [published, matched] = [0, 0];
  for await (const batch of batchesOf(texts.length ? texts : linesOf(process.stdin))) {
    const events = batch.map((text) => ({ id: randomUUID(), source: 'example-publish', topic, text }));
    const { results } = await answered(publish, events, Number(timeout) * 1000);
    const refusals = results.flatMap(({ status }) => status ?? []);
    refusals.forEach((status) => console.error('refused:', describe(status)));
    if (refusals.length) process.exitCode = 1;
    published += results.length - refusals.length;
    matched += results.reduce((sum, result) => sum + result.matched, 0);
  }
  hub.close();
  console.log(`published ${published}, matched ${matched}`);
};
await main(usage, 1, program, options);

// Publishes events to one topic: each TEXT is one event; without TEXT, each line of standard input is one.
//
//     node examples/node/publish.mjs greetings.en hello "good morning"

import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const BATCH = 100;

// The stubs are made here, from the .proto files.
const definitions = loadSync(['switchyard/v1/hub_service.proto', 'google/rpc/error_details.proto'], {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  longs: Number,
  defaults: true,
});
const { HubService } = grpc.loadPackageDefinition(definitions).switchyard.v1;

/** The code, reason, field and text of a refusal, a google.rpc.Status. */
function describe(status) {
  const words = [grpc.status[status.code]];
  for (const { type_url: url, value } of status.details) {
    const detail = definitions[url.split('/').pop()]?.deserialize(value);
    if (detail?.reason) words.push(detail.reason);
    for (const { field } of detail?.fieldViolations ?? []) words.push(field);
  }
  return `${words.join(' ')}: ${status.message}`;
}

// Not readline: it would also split at U+2028, which JSON may hold.
async function* linesOf(stream) {
  let rest = '';
  for await (const chunk of stream.setEncoding('utf8')) {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop();
    yield* lines;
  }
  if (rest) yield rest;
}

async function* batchesOf(texts) {
  const batch = [];
  for await (const text of texts) if (batch.push(text) === BATCH) yield batch.splice(0);
  if (batch.length) yield batch;
}

async function publishAll(hub, topic, texts) {
  const publish = promisify(hub.publish.bind(hub));
  let [published, matched] = [0, 0];
  for await (const batch of batchesOf(texts)) {
    const events = batch.map((text) => ({ topic, text }));
    const { results } = await publish({ events }, { deadline: Date.now() + 30_000 });
    const refusals = results.flatMap(({ status }) => status ?? []);
    refusals.forEach((status) => console.error('refused:', describe(status)));
    if (refusals.length) process.exitCode = 1;
    published += results.length - refusals.length;
    matched += results.reduce((sum, result) => sum + result.matched, 0);
  }
  console.log(`published ${published}, matched ${matched}`);
}

try {
  const options = { server: { type: 'string', default: '127.0.0.1:50051' } };
  const { values, positionals: [topic, ...texts] } = parseArgs({ options, allowPositionals: true });
  if (!topic) {
    console.error('usage: publish.mjs [--server HOST:PORT] TOPIC [TEXT...]');
    process.exit(1);
  }
  const hub = new HubService(values.server, grpc.credentials.createInsecure());
  await publishAll(hub, topic, texts.length ? texts : linesOf(process.stdin));
} catch (error) {
  const [trailer] = error.metadata?.get('grpc-status-details-bin') ?? []; // a refusal's whole status
  const why = trailer ? describe(definitions['google.rpc.Status'].deserialize(trailer)) : error.message;
  console.error('publish failed:', why);
  process.exitCode = 1;
}

// The stubs, made from the .proto files, and how to read why the hub refused something.

import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const definitions = loadSync(['switchyard/v1/hub_service.proto', 'google/rpc/error_details.proto'], {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { HubService } = grpc.loadPackageDefinition(definitions).switchyard.v1;

/** A connection of its own, whatever other connections the program has. */
export const connect = (server) =>
  new HubService(server, grpc.credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 5000,
  });

export const milliseconds = (duration) => (duration ? duration.seconds * 1000 + duration.nanos / 1e6 : 0);

/** The google.rpc.Status of a call that failed. That of a refusal travels whole in a trailer. */
export function statusOf(error) {
  const [trailer] = error.metadata.get('grpc-status-details-bin');
  return trailer
    ? definitions['google.rpc.Status'].deserialize(trailer)
    : { code: error.code, message: error.details, details: [] };
}

const detailsOf = (status) =>
  status.details.flatMap(({ type_url: url, value }) => definitions[url.split('/').pop()]?.deserialize(value) ?? []);

/** The code, reason, field and text of a refusal, in one line. */
export function describe(status) {
  const details = detailsOf(status);
  const reasons = details.flatMap(({ reason }) => reason ?? []);
  const fields = details.flatMap(({ fieldViolations }) => fieldViolations ?? []).map(({ field }) => field);
  return `${[grpc.status[status.code], ...reasons, ...fields].join(' ')}: ${status.message}`;
}

/** How long the hub asks to wait before the next attempt, in milliseconds; 0 if it does not say. */
export const delayOf = (status) =>
  Math.max(0, ...detailsOf(status).map(({ retryDelay }) => milliseconds(retryDelay)));

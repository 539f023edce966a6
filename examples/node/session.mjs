// One session with the hub: its frames, until it is lost. Rules 1, 4 and 5 of clients/SPEC.md.

import grpc from '@grpc/grpc-js';
import { connect, delayOf, describe, milliseconds, statusOf } from './contract.mjs';

export const HEARTBEAT = 15; // seconds that an idle hub may be silent
const CONNECT = 10; // seconds until the first frame, at most
const FINAL = ['UNAUTHENTICATED', 'PERMISSION_DENIED', 'UNIMPLEMENTED', 'ABORTED'];

/** The session is over, and another one may go on: after `delay` milliseconds, if the hub said so. */
export class Lost extends Error {
  constructor(message, delay = 0) {
    super(message);
    this.delay = delay;
  }
}

/** Throws on what trying again cannot mend, and `Lost` if another session may. */
function check({ ended, error }) {
  // A command for a subscription that has just ended was too late, which is no fault.
  if (error && !describe(error).includes('SUBSCRIPTION_NOT_FOUND')) throw new Error(`refused: ${describe(error)}`);
  if (!ended?.status?.code) return;
  if (!ended.retry?.retry) throw new Error(`ended: ${describe(ended.status)}`);
  // If the hub drains, the session ends too.
  if (ended.reason !== 'END_REASON_DRAINING') throw new Lost(describe(ended.status), milliseconds(ended.retry.delay));
}

/** Calls `begin` with the way to send commands, and `take` with each frame. Returns why the session is lost. */
export async function session(server, begin, take) {
  const hub = connect(server);
  const call = hub.session();
  call.on('error', () => {}); // the loop throws it
  let [delay, silence] = [0];
  const listen = (seconds) => {
    silence = setTimeout(() => call.destroy(new Lost('the hub is silent')), seconds * 1000);
  };
  listen(CONNECT);
  try {
    begin(call);
    for await (const response of call) {
      clearTimeout(silence);
      check(response);
      delay = milliseconds(response.draining?.reconnectDelay) || delay;
      await take(response);
      listen(2 * HEARTBEAT + 5);
    }
    return new Lost('the hub closed the session', delay);
  } catch (error) {
    if (error instanceof Lost) return error;
    if (!error.metadata) throw error;
    const status = statusOf(error);
    if (FINAL.includes(grpc.status[status.code])) throw new Error(`no session with the hub: ${describe(status)}`);
    return new Lost(describe(status), delay || delayOf(status));
  } finally {
    clearTimeout(silence);
    call.cancel();
    hub.close();
  }
}

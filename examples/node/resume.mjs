// Follows a stream and keeps its place in a file, so that it goes on where it was after it has been killed.

import { open, readFile, rename } from 'node:fs/promises';
import { Following } from './following.mjs';
import { main } from './main.mjs';

const MAX_BATCH = 100; // events in one frame, which is the most that is seen twice after the program was killed
const WINDOW = 2 * MAX_BATCH; // events that the hub may send before the first of them are done

/** Keeps a token. Whoever reads the file finds the old one or the new one, whole, even after a loss of power. */
async function keep(path, token) {
  const file = await open(`${path}.new`, 'w');
  await file.writeFile(`${token}\n`);
  await file.sync();
  await file.close();
  await rename(`${path}.new`, path);
}

/** The token of an earlier run; empty if there was none. */
async function kept(path) {
  const text = await readFile(path, 'utf8').catch((error) => {
    if (error.code !== 'ENOENT') throw error;
    return '';
  });
  return text.trim();
}

const usage = 'resume.mjs [--server HOST:PORT] STREAM FILE [FILTER...]';
await main(usage, 2, async ({ server }, [stream, path, ...filters]) => {
  const token = await kept(path);
  const start = token ? { resumeToken: token } : { preset: 'START_PRESET_EARLIEST' };
  const spec = { stream, filters, start, credit: { events: WINDOW }, maxBatch: MAX_BATCH };
  const passed = async ({ resumeToken }) => {
    await keep(path, resumeToken);
    spec.start = { resumeToken };
  };
  const on = {
    async events(frame) {
      for (const { sequence, event: { topic, payload, text = '', data } } of frame.events) {
        console.log(sequence, topic, payload === 'data' ? `<${data.length} bytes>` : text);
      }
      // After the work: a token that is kept too early skips events after a crash, one kept too late repeats some.
      await passed(frame);
      reader.send({ credit: { subscriptionId: 1, credit: { events: frame.events.length } } });
    },
    progress: passed,
  };
  const reader = new Following(server, 'example-resume', new Map([[1, spec]]), on);
  await reader.follow();
});

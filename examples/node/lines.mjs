// Texts in batches.

const BATCH = 100;

/** The lines of a stream. Not readline: it would also split at U+2028, which JSON may hold. */
export async function* linesOf(stream) {
  let rest = '';
  for await (const chunk of stream.setEncoding('utf8')) {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop();
    yield* lines;
  }
  if (rest) yield rest;
}

export async function* batchesOf(texts) {
  const batch = [];
  for await (const text of texts) if (batch.push(text) === BATCH) yield batch.splice(0);
  if (batch.length) yield batch;
}

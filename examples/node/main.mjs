// The command line that all examples have.

import { parseArgs } from 'node:util';

/** Runs a program with its options and at least so many other arguments. Its failure is one line and status 1. */
export async function main(usage, least, program, more = {}) {
  const options = { server: { type: 'string', default: '127.0.0.1:50051' }, ...more };
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    if (positionals.length < least) throw new Error(`usage: ${usage}`);
    await program(values, positionals);
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}

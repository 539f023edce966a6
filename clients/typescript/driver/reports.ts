// What the driver says: one JSON object a line.

import type { SwitchyardError } from "../src/index.js";

/** Each line is written when it is said, and whole. */
export function say(report: object): void {
  process.stdout.write(`${JSON.stringify(report, (_, value: unknown) => (typeof value === "bigint" ? Number(value) : value))}\n`);
}

export interface Failure {
  readonly reason: string;
  readonly text: string;
}

export function failureOf(error: SwitchyardError): Failure {
  return { reason: error.reason, text: error.message };
}

// Breaks a rule in a copy of what is built, and lets the judge of clients play a scenario with it: each break must be caught, by
// the rule that is meant. So the judge is known to see, through the driver in driver/, what it is there to see.
//
//   node scripts/mutants.mjs PROGRAM-OF-THE-JUDGE

import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [judge] = process.argv.slice(2);

/** What is broken, where, what is written instead, the scenario, and the rule that must fail. */
const MUTANTS = [
  ["waits without jitter", "backoff", "ceiling * this.random()", "ceiling", "start-before-hub", "backoff"],
  ["a window twice as large", "credit", "this.window.events - this.heldEvents", "2 * this.window.events - this.heldEvents", "windows", "window"],
  ["keeps gaps to itself", "row", 'this.gap(unknownGap("away"));', "", "live-gap", "gaps"],
  ["goes on where it began", "place", "this.reached = token;\n        if (this.isStuck)", "this.reached ??= token;\n        if (this.isStuck)", "cut-while-idle", "repeat"],
  ["what came is done", "place", "this.open.push({ first", "this.done = token;\n            this.open.push({ first", "hub-is-killed", "place"],
  ["gives an event twice", "hands", "if (this.held.has(sequence)) {\n            return undefined;", "if (this.held.has(sequence)) {\n            return (this.next += 1);", "leases", "repeat"],
  ["a queue without a limit", "publishes", /hasRoom\(amount\) \{/, "hasRoom(amount) {\n        return true;", "queue-is-full", "queue"],
  ["hears nothing and waits", "machine", "return this.lastFrame + this.patience();", "return this.lastFrame + 600_000;", "black-hole", "silence"],
];

/** Whether the judge sees this one, and what it says. */
async function isCaught([name, file, from, to, scenario, rule]) {
  const folder = mkdtempSync(join(root, "build", "mutant-"));
  try {
    for (const part of ["src", "driver"]) cpSync(join(root, "build", part), join(folder, part), { recursive: true });
    const path = join(folder, "src", "machine", `${file}.js`);
    const source = readFileSync(path, "utf8");
    const broken = source.replace(from, to);
    if (broken === source) return [false, `${name}: nothing in ${file}.js to break`];
    writeFileSync(path, broken);
    const command = `node ${join(folder, "driver", "main.js")}`;
    const said = await output(judge, ["--listener", "web", "--driver", command, "--scenario", scenario]);
    return [new RegExp(`^\\s*${rule}\\b`, "m").test(said) && /FAILED/i.test(said), said];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function output(program, words) {
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  await new Promise((closed) => child.once("close", closed));
  return said;
}

let missed = 0;
for (const mutant of MUTANTS) {
  const [caught, said] = await isCaught(mutant);
  console.log(`${caught ? "caught" : "MISSED"}  ${mutant[0]}: ${mutant[4]}, ${mutant[5]}`);
  if (!caught) console.log(said);
  missed += caught ? 0 : 1;
}
process.exit(missed ? 1 : 0);

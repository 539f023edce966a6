// Puts what is built for browsers into one file, dist/switchyard.js: a plain module without imports, in the order in which its
// parts need each other. With --check it only compares, and fails if the file is not what the sources make.
//
// Comments stay behind: the sources have them. A bundler would be another dependency for what a concatenation does, as long as no two parts use one name.

import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, "dist", "switchyard.js");
const IMPORT = /^import (?:\{[^}]*\}|\w+) from "([^"]+)";\n/gm;
const DECLARED = /^(?:export )?(?:async )?(?:class|const|let|function\*?) (\w+)/gm;

const done = new Set();
const owners = new Map();
const parts = [];

/** Adds a module behind those that it imports. */
function add(file) {
  if (done.has(file)) {
    return;
  }
  done.add(file);
  const source = readFileSync(join(root, "build", "plain", "src", file), "utf8");
  for (const [, from] of source.matchAll(IMPORT)) {
    add(normalize(join(dirname(file), from)));
  }
  const body = source.replace(IMPORT, "");
  if (/^import /m.test(body) || /^import \{[^}]* as /m.test(source)) {
    throw new Error(`${file} has an import that this script does not understand`);
  }
  for (const [, name] of body.matchAll(DECLARED)) {
    if (owners.has(name)) {
      throw new Error(`${name} is declared by both ${owners.get(name)} and ${file}`);
    }
    owners.set(name, file);
  }
  parts.push(`// ${file.replace(/\.js$/, ".ts")}\n\n${body.replace(/^export (?=async|class|const|let|function)/gm, "").trim()}\n`);
}

const index = readFileSync(join(root, "build", "plain", "src", "index.js"), "utf8");
const names = [];
for (const [, exported, from] of index.matchAll(/^export \{ ([^}]*) \} from "([^"]+)";$/gm)) {
  add(normalize(from));
  names.push(...exported.split(", "));
}
const head = "// The client of Switchyard for browsers, in one file: clients/typescript. Made by scripts/bundle.mjs; do not edit.\n";
const text = `${head}\n${parts.join("\n")}\nexport { ${names.sort().join(", ")} };\n`;

if (process.argv.includes("--check")) {
  if (readFileSync(target, "utf8") !== text) {
    console.error("dist/switchyard.js is not what the sources make: run npm run bundle");
    process.exit(1);
  }
} else {
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
}

// The rules of the house for these sources: what is pure stays so, and files do not need each other in circles.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const SRC = fileURLToPath(new URL("../../src/", import.meta.url));
const MOST_LINES = 600;
/** What depends on the time, on chance, or on anything outside. */
const IMPURE =
  /(?<![.\w])(setTimeout|setInterval|setImmediate|queueMicrotask|Date\.now|performance|Math\.random|crypto|console|process|globalThis|async|await|Promise)\b/;

const sources = new Map(
  readdirSync(SRC, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => [name, readFileSync(join(SRC, name), "utf8")]),
);

/** The files whose values a file uses. */
function used(name: string, text: string): string[] {
  return [...text.matchAll(/^import (?!type )[^;]*? from "(\.[^"]+)\.js";/gms)].map(([, path]) => {
    return relative(SRC, join(SRC, dirname(name), `${path}.ts`));
  });
}

function code(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/\/\/.*$/gm, "");
}

test("every file says what it is for, and is not too long", () => {
  assert(sources.size > 30);
  for (const [name, text] of sources) {
    assert(text.startsWith("// "), `${name} does not say what it is for`);
    assert(text.split("\n").length <= MOST_LINES, `${name} is too long`);
  }
});

test("what is pure knows no time, no chance, and nothing outside", () => {
  for (const [name, text] of sources) {
    const head = text.slice(0, text.indexOf("\n\n"));
    const isPure = /\bPure\./.test(head);
    assert(isPure || !name.startsWith("machine/"), `${name} does not say that it is pure`);
    if (isPure && name !== "spec.ts") {
      const [found] = IMPURE.exec(code(text)) ?? [];
      assert.equal(found, undefined, `${name} is not pure: ${found}`);
    }
  }
});

test("files do not use each other in circles", () => {
  const graph = new Map([...sources].map(([name, text]) => [name, used(name, text)]));
  const visit = (name: string, path: string[]): void => {
    assert(!path.includes(name), `a circle: ${[...path, name].join(" -> ")}`);
    for (const other of graph.get(name) ?? []) {
      visit(other, [...path, name]);
    }
  };
  for (const name of graph.keys()) {
    visit(name, []);
  }
});

test("nothing comes from elsewhere but what Node has", () => {
  for (const [name, text] of sources) {
    const foreign = [...text.matchAll(/from "([^."][^"]*)";/g)].map(([, from]) => from);
    const isAllowed = (from: string | undefined): boolean => name === "node.ts" && from?.startsWith("node:") === true;
    assert(foreign.every(isAllowed), `${name} imports ${foreign.join(", ")}`);
  }
});

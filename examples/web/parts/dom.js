/**
 * The few things that all pages do with a document. What people write gets onto a page as text (`textContent`) and by no
 * other way, so it is never read as HTML; the pages' Content-Security-Policy refuses everything else.
 */

/** The element that matches, which must be there. */
export function find(selector, within = document) {
  const element = within.querySelector(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

/** A copy of the content of a `<template>`: its first element. */
export function copy(template) {
  return find(`template#${template}`).content.firstElementChild.cloneNode(true);
}

/** Writes texts into the elements of a copy, by their `data-is`. */
export function fill(element, texts) {
  for (const [name, text] of Object.entries(texts)) find(`[data-is="${name}"]`, element).textContent = text;
  return element;
}

/** Calls `draw` at most once per frame, however often it is asked to. */
export function oncePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/** Random and fit for a topic token. Pages may come by plain HTTP, where `crypto.randomUUID` does not exist. */
export function randomToken(bytes = 12) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

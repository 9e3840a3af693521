/**
 * The element with this id, which the page's HTML is known to have.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id @param {new () => T} [type] @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!found || (type && !(found instanceof type))) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (found);
}

/**
 * A new element. Text is always text: nothing that a document or its name holds becomes markup.
 * @param {string} tag @param {string} name its class @param {string} text
 */
export function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

const format = new Intl.NumberFormat("en");

/** @param {number} number */
export function figure(number) {
  return format.format(number);
}

/** @param {number} number @param {string} one @param {string} [several] */
export function count(number, one, several = `${one}s`) {
  return `${figure(number)} ${number === 1 ? one : several}`;
}

/** Writes text only where it differs: a live region speaks at every change. @param {HTMLElement} where @param {string} text */
export function write(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/**
 * The element with this id. Throws if the page has none.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id @param {new () => T} [type] @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!found || (type && !(found instanceof type))) throw new Error(`cannot find the element #${id}`);
  return /** @type {T} */ (found);
}

/**
 * Creates an element. The text is never parsed as markup.
 * @param {string} tag @param {string} name class of the element @param {string} text
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

/** Sets the text if it differs, because a screen reader reads each change. @param {HTMLElement} where @param {string} text */
export function write(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

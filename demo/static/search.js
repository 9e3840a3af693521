// The search box, open as soon as there is an index.
import { count, element, make, write } from "./dom.js";
import { search } from "./site_api.js";

const PAUSE_MS = 120;
// Stand around a word that was found.
const MARK = /\x02([^\x03]*)\x03/;

export class Search {
  #operation = "";
  #box = element("search", HTMLInputElement);
  #found = element("found");
  #results = element("results");
  #scroll = element("results-scroll");
  #running = new AbortController();
  /** @type {number | undefined} */
  #timer;

  constructor() {
    this.#box.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#search(), PAUSE_MS);
    });
    element("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(this.#timer);
      void this.#search();
    });
  }

  /** @param {string} hint why */
  close(hint = "Opens when the index is written.") {
    this.#running.abort();
    this.#box.disabled = true;
    this.#box.value = "";
    this.#show([]);
    write(this.#found, hint);
  }

  /** @param {string} operation */
  open(operation) {
    this.#operation = operation;
    this.#box.disabled = false;
    write(this.#found, "Type a word from the documents.");
  }

  async #search() {
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this.#running;
    const query = this.#box.value.trim();
    if (!query) {
      this.#show([]);
      return write(this.#found, "Type a word from the documents.");
    }
    try {
      const { total, hits } = await search(this.#operation, query, signal);
      if (signal.aborted) return;
      write(this.#found, total ? `${count(total, "passage")}${total > hits.length ? `, the best ${hits.length} of them` : ""}` : "Nothing found.");
      this.#show(hits);
    } catch (error) {
      if (!signal.aborted) write(this.#found, `The search did not work: ${error instanceof Error ? error.message : error}.`);
    }
  }

  /** @param {import("./site_api.js").Found["hits"]} hits */
  #show(hits) {
    this.#results.replaceChildren(...hits.map(result));
    this.#scroll.scrollTop = 0;
    // Nothing to scroll is nothing to stop at with the Tab key.
    this.#scroll.hidden = !hits.length;
  }
}

/** @param {{document: string, snippet: string}} hit */
function result({ document, snippet }) {
  const item = make("li", "", "");
  item.dataset.document = document;
  const text = make("p", "", "");
  snippet.split(MARK).forEach((part, i) => text.append(i % 2 ? make("mark", "", part) : part));
  item.append(make("span", "name", document), text);
  return item;
}

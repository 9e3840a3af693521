// The search box. It is enabled when the index is ready.
import { count, element, make, write } from "./dom.js";
import { search } from "./site_api.js";

const PAUSE_MS = 120;
// Delimits a found term.
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

  /** @param {string} hint reason for the user */
  close(hint = "Available when the index is ready.") {
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
      if (!signal.aborted) write(this.#found, `Cannot search: ${error instanceof Error ? error.message : error}.`);
    }
  }

  /** @param {import("./site_api.js").Found["hits"]} hits */
  #show(hits) {
    this.#results.replaceChildren(...hits.map(result));
    this.#scroll.scrollTop = 0;
    // An empty list must not be a stop of the Tab key.
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

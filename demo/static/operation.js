// What is known of an operation. No DOM, no network: events in, figures out.

/**
 * @typedef {object} Document
 * @property {string} document
 * @property {"indexed" | "failed"} state
 * @property {number} words
 * @property {string} reason
 * @property {number} offset place in the channel; 0 where it came from the site
 */

/**
 * What the site answers about an operation.
 * @typedef {object} State
 * @property {string} operation
 * @property {string} cursor
 * @property {string} label
 * @property {number} total
 * @property {"running" | "ready" | "failed"} state
 * @property {number} terms
 * @property {Omit<Document, "offset">[]} documents
 */

/** @typedef {import("./events.js").Events} Events */
/** @typedef {import("/client.js").AnyEvent<Events>} AnyEvent */
/** @typedef {import("./events.js").BatchProgress} Batch */

// How far back the rate looks.
const WINDOW_MS = 4000;
// Writing the index is the last part of the bar, and a small one of the work.
const READING = 0.95;

export class Operation {
  /** @type {Map<string, Document>} in order of arrival */
  documents = new Map();
  /** @type {Map<number, Batch>} what is being read now */
  batches = new Map();
  /** @type {"running" | "ready" | "failed"} */
  state = "running";
  failed = 0;
  words = 0;
  terms = 0;
  /** Events about documents that an event had listed already: none. What the site told after a gap may be told again. */
  repeats = 0;
  trouble = "";
  /** Raised when the list begins anew. */
  edition = 0;
  #provisional = false;
  #writing = 0;
  #began = 0;
  #ended = 0;
  /** @type {number[]} when the latest documents were done, by the worker's clock */
  #times = [];

  /** @param {string} label @param {number} total */
  constructor(label, total) {
    this.label = label;
    this.total = total;
  }

  /** @param {AnyEvent} event */
  take(event) {
    this.#began ||= event.time;
    switch (event.type) {
      case "document.indexed":
        this.#done({ document: event.data.document, state: "indexed", words: event.data.words, reason: "", offset: event.offset }, event.time);
        break;
      case "document.failed":
        this.#done({ document: event.data.document, state: "failed", words: 0, reason: event.data.reason, offset: event.offset }, event.time);
        break;
      case "batch.progress":
        if (event.data.done < event.data.total) this.batches.set(event.data.batch, event.data);
        else this.batches.delete(event.data.batch);
        break;
      case "task.progress":
        if (event.data.stage === "index" && event.data.total) this.#writing = event.data.done / event.data.total;
        break;
      case "task.failed":
        this.trouble = event.data.error;
        break;
      case "index.ready":
        this.terms = event.data.terms;
        this.#end("ready", event.time);
        break;
      case "operation.failed":
        this.#end("failed", event.time);
        break;
      default: // Others tell of the same, in less detail.
    }
  }

  /** What the site knows. Provisionally: until the bus, which tells it in order, can be reached. @param {State} state */
  merge(state, provisional = false) {
    this.#provisional = provisional;
    this.label = state.label;
    this.total = state.total;
    for (const document of state.documents) {
      if (!this.documents.has(document.document)) this.#add({ ...document, offset: 0 });
    }
    if (state.state === "running") return;
    this.terms = state.terms;
    this.#end(state.state, 0);
  }

  get writing() {
    return this.state === "running" && this.documents.size >= this.total;
  }

  /** From 0 to 1; 1 only when the index is there. */
  get fraction() {
    if (this.state === "ready") return 1;
    return this.total ? (READING * this.documents.size) / this.total + (1 - READING) * Math.min(this.#writing, 0.99) : 0;
  }

  /** Documents per second, or undefined while nobody can tell. */
  get rate() {
    const first = this.#times[0];
    const last = this.#times.at(-1);
    if (first === undefined || last === undefined || last - first < 500) return undefined;
    return ((this.#times.length - 1) * 1000) / (last - first);
  }

  get secondsLeft() {
    return this.rate ? (this.total - this.documents.size) / this.rate : undefined;
  }

  /** How long all of it took, where the beginning and the end were both seen. */
  get seconds() {
    return this.#began && this.#ended ? (this.#ended - this.#began) / 1000 : undefined;
  }

  /** @param {Document} document @param {number} time */
  #done(document, time) {
    if (this.#provisional) this.#restart();
    const known = this.documents.get(document.document);
    if (!known) this.#add(document);
    else if (known.offset) this.repeats++;
    else known.offset = document.offset;
    this.#times.push(time);
    while ((this.#times[0] ?? time) < time - WINDOW_MS) this.#times.shift();
  }

  #restart() {
    this.#provisional = false;
    this.documents.clear();
    this.failed = this.words = 0;
    this.edition++;
  }

  /** @param {Document} document */
  #add(document) {
    this.documents.set(document.document, document);
    this.words += document.words;
    if (document.state === "failed") this.failed++;
  }

  /** @param {"ready" | "failed"} state @param {number} time */
  #end(state, time) {
    this.state = state;
    this.#ended = time;
    this.batches.clear();
  }
}

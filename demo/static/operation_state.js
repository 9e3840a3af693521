// The state of the operation on the page. Pure: it takes events and has neither DOM nor network.

/**
 * @typedef {object} Document
 * @property {string} document
 * @property {"indexed" | "failed"} state
 * @property {number} words
 * @property {string} reason
 * @property {number} offset position in the channel; 0 if the site returned it
 */

/**
 * The state of an operation as the site returns it.
 * @typedef {object} State
 * @property {string} operation
 * @property {string} cursor
 * @property {string} label
 * @property {number} total
 * @property {PageState} state
 * @property {number} terms
 * @property {Omit<Document, "offset">[]} documents
 */

/** @typedef {import("./events.js").Events} Events */
/** @typedef {import("/client.js").AnyEvent<Events>} AnyEvent */
/** @typedef {import("./events.js").BatchProgress} Batch */
/** @typedef {import("./events.js").TaskProgress} TaskProgress */

/** `stopping`: the user requested a stop. `lost`: the worker has stopped. @typedef {"running" | "stopping" | "lost" | "ready" | "failed" | "cancelled"} PageState */
/** An event that the progress bar does not show. @typedef {{kind: string, time: number, text: string}} Incident */
/** A running task. @typedef {{key: string, label: string, name: string, task: string}} Row */

const FINAL_STATES = new Set(["ready", "failed", "cancelled"]);
/** The stages of the task that writes the index. @type {Record<string, string>} */
const STAGES = { collect: "collecting the passages", index: "writing the passages", terms: "counting the terms" };

/** The state, the text and the kind of the incident by event. @type {Record<string, readonly [PageState, string, string]>} */
const STATE_CHANGES = {
  "operation.lost": ["lost", "The worker is lost. Another worker repeats its unfinished tasks.", "lost"],
  "operation.resumed": ["running", "A worker has resumed the lost tasks.", "resumed"],
  "operation.cancelling": ["stopping", "Stopping. The running documents finish; no other document starts.", "stopping"],
  "operation.cancelled": ["cancelled", "Cancelled. Finished documents stay.", "cancelled"],
  "operation.failed": ["failed", "Failed. Finished documents stay, but there is no index.", "failed"],
};

// The rate is an average over this time.
const WINDOW_MS = 4000;
// The fraction of the progress bar for reading documents. The rest is for writing the index.
const READING_FRACTION = 0.95;

export class Operation {
  /** @type {Map<string, Document>} in order of arrival */
  documents = new Map();
  /** @type {Map<number, Batch>} the batches that run now */
  batches = new Map();
  /** @type {PageState} */
  state = "running";
  /** @type {Incident[]} */
  incidents = [];
  failed = 0;
  words = 0;
  terms = 0;
  /** The number of repeated document events. It stays 0; events of documents from the site do not count. */
  repeats = 0;
  /** The latest progress of the task that writes the index. @type {TaskProgress | undefined} */
  indexTask;
  /** Increases when the list of documents starts again. */
  revision = 0;
  #provisional = false;
  #startTime = 0;
  #endTime = 0;
  /** @type {number[]} completion times of the latest documents, by the worker's clock */
  #times = [];

  /** @param {string} label @param {number} total */
  constructor(label, total) {
    this.label = label;
    this.total = total;
  }

  /** @param {AnyEvent} event */
  apply(event) {
    this.#startTime ||= event.time;
    switch (event.type) {
      case "document.indexed":
        this.#done({ document: event.data.document, state: "indexed", words: event.data.words, reason: "", offset: event.offset }, event.time);
        break;
      case "document.failed":
        this.#done({ document: event.data.document, state: "failed", words: 0, reason: event.data.reason, offset: event.offset }, event.time);
        break;
      case "batch.progress":
        if (event.data.done < event.data.total && !this.over) this.batches.set(event.data.batch, event.data);
        else this.batches.delete(event.data.batch);
        break;
      case "task.progress":
        if (event.data.stage === "index") this.indexTask = event.data;
        break;
      case "task.failed":
        this.#taskFailed(event.data, event.time);
        break;
      case "index.ready":
        this.terms = event.data.terms;
        this.#finish("ready", event.time);
        break;
      default:
        this.#lifecycle(event);
    }
  }

  /** Applies an event that changes the state. Other events have no additional information. @param {AnyEvent} event */
  #lifecycle({ type, time }) {
    const change = STATE_CHANGES[type];
    if (!change) return;
    // No process reads the documents of a lost worker now.
    if (type === "operation.lost") this.batches.clear();
    const [state, text, kind] = change;
    this.#changeState(state, time, text, kind);
  }

  /** Merges the state from the site. `provisional`: until the bus is reachable and sends the events. @param {State} state */
  merge(state, provisional = false) {
    this.#provisional = provisional;
    this.label = state.label;
    this.total = state.total;
    for (const document of state.documents) {
      if (!this.documents.has(document.document)) this.#add({ ...document, offset: 0 });
    }
    this.terms = state.terms;
    if (FINAL_STATES.has(state.state)) this.#finish(state.state, 0);
    else if (!this.over) this.state = state.state;
  }

  /** Shows the request to stop before the bus confirms it. Returns a function that undoes this. */
  requestStop() {
    if (this.state !== "running" && this.state !== "lost") return () => undefined;
    const previous = this.state;
    this.state = "stopping";
    return () => {
      if (this.state === "stopping") this.state = previous;
    };
  }

  get over() {
    return FINAL_STATES.has(this.state);
  }

  get writing() {
    return this.state === "running" && this.documents.size >= this.total;
  }

  /** The stage of writing the index. */
  get stage() {
    return STAGES[this.indexTask?.part?.name ?? ""] ?? "writing the index";
  }

  /** The running tasks. @returns {Row[]} */
  get rows() {
    if (this.over) return [];
    const rows = [...this.batches.values()].sort((one, other) => one.batch - other.batch).map(row);
    if (this.writing && this.indexTask) rows.push({ key: "index", label: "Index", name: this.stage, task: this.indexTask.task });
    return rows;
  }

  /** The progress from 0 to 1. It is 1 only when the index is ready. */
  get fraction() {
    if (this.state === "ready") return 1;
    return this.total ? (READING_FRACTION * this.documents.size) / this.total + (1 - READING_FRACTION) * Math.min(this.indexTask?.share ?? 0, 0.99) : 0;
  }

  /** Documents per second, or undefined if there are too few to measure it. */
  get rate() {
    const first = this.#times[0];
    const last = this.#times.at(-1);
    if (first === undefined || last === undefined || last - first < 500) return undefined;
    return ((this.#times.length - 1) * 1000) / (last - first);
  }

  get secondsLeft() {
    return this.rate ? (this.total - this.documents.size) / this.rate : undefined;
  }

  /** The total duration in seconds, if the page received both the first and the last event. */
  get seconds() {
    return this.#startTime && this.#endTime ? (this.#endTime - this.#startTime) / 1000 : undefined;
  }

  /** @param {Document} document @param {number} time */
  #done(document, time) {
    if (this.#provisional) this.#discardDocuments();
    const known = this.documents.get(document.document);
    if (!known) this.#add(document);
    else if (known.offset) this.repeats++;
    else known.offset = document.offset;
    this.#times.push(time);
    while ((this.#times[0] ?? time) < time - WINDOW_MS) this.#times.shift();
  }

  #discardDocuments() {
    this.#provisional = false;
    this.documents.clear();
    this.failed = this.words = 0;
    this.revision++;
  }

  /** @param {Document} document */
  #add(document) {
    this.documents.set(document.document, document);
    this.words += document.words;
    if (document.state === "failed") this.failed++;
  }

  /** Adds a failed task. The last progress of its batch names the document. @param {import("./events.js").TaskFailed} failed @param {number} time */
  #taskFailed({ task, error }, time) {
    const batch = [...this.batches.values()].find((batch) => batch.task === task);
    if (batch) this.batches.delete(batch.batch);
    const detail = batch ? `${batch.document}: ${error}` : error;
    this.incidents.push({ kind: "task", time, text: `A task has failed. ${detail}` });
  }

  /** Applies a state from the bus. @param {PageState} state @param {number} time @param {string} text @param {string} kind */
  #changeState(state, time, text, kind) {
    if (this.over) return;
    this.incidents.push({ kind, time, text });
    if (FINAL_STATES.has(state)) this.#finish(state, time);
    else this.state = state;
  }

  /** @param {PageState} state @param {number} time */
  #finish(state, time) {
    this.state = state;
    this.#endTime = time;
    this.batches.clear();
  }
}

/** @param {Batch} batch @returns {Row} */
function row({ batch, task, document, done, total }) {
  const label = total > 1 ? `Batch ${batch}, ${done + 1} of ${total}` : `File ${batch}`;
  return { key: String(batch), label, name: document, task };
}

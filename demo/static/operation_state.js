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
 * @property {Stand} state
 * @property {number} terms
 * @property {Omit<Document, "offset">[]} documents
 */

/** @typedef {import("./events.js").Events} Events */
/** @typedef {import("/client.js").AnyEvent<Events>} AnyEvent */
/** @typedef {import("./events.js").BatchProgress} Batch */
/** @typedef {import("./events.js").TaskProgress} TaskProgress */

/** `stopping`: somebody has pressed Cancel; `lost`: its worker is gone. @typedef {"running" | "stopping" | "lost" | "ready" | "failed" | "cancelled"} Stand */
/** Something that went otherwise than the bar shows. @typedef {{word: string, time: number, text: string}} Happening */
/** A task that runs. @typedef {{key: string, label: string, name: string, task: string}} Row */

const ENDS = new Set(["ready", "failed", "cancelled"]);
/** The stages of the task that writes the index. @type {Record<string, string>} */
const STAGES = { collect: "collecting the passages", index: "writing the passages", terms: "counting the terms" };

// How far back the rate looks.
const WINDOW_MS = 4000;
// Writing the index is the last part of the bar, and a small one of the work.
const READING = 0.95;

export class Operation {
  /** @type {Map<string, Document>} in order of arrival */
  documents = new Map();
  /** @type {Map<number, Batch>} what is being read now */
  batches = new Map();
  /** @type {Stand} */
  state = "running";
  /** @type {Happening[]} */
  happened = [];
  failed = 0;
  words = 0;
  terms = 0;
  /** Events about documents that an event had listed already: none. What the site told after a gap may be told again. */
  repeats = 0;
  /** The task that writes the index, as it has told last. @type {TaskProgress | undefined} */
  writer;
  /** Raised when the list begins anew. */
  edition = 0;
  #provisional = false;
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
        if (event.data.done < event.data.total && !this.over) this.batches.set(event.data.batch, event.data);
        else this.batches.delete(event.data.batch);
        break;
      case "task.progress":
        if (event.data.stage === "index") this.writer = event.data;
        break;
      case "task.failed":
        this.#taskFailed(event.data, event.time);
        break;
      case "operation.lost":
        // What was being read is read by nobody now.
        this.batches.clear();
        this.#turn("lost", event.time, "The worker is gone. What it had begun comes again as soon as there is another one.");
        break;
      case "operation.resumed":
        this.#turn("running", event.time, "A worker has taken up again what was lost.", "resumed");
        break;
      case "operation.cancelling":
        this.#turn("stopping", event.time, "Stopping: no document is begun any more, those that are being read are finished.");
        break;
      case "operation.cancelled":
        this.#turn("cancelled", event.time, "Cancelled. What is done stays.");
        break;
      case "index.ready":
        this.terms = event.data.terms;
        this.#end("ready", event.time);
        break;
      case "operation.failed":
        this.#turn("failed", event.time, "Failed. What is done stays; an index is written only from all of it.");
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
    this.terms = state.terms;
    if (ENDS.has(state.state)) this.#end(state.state, 0);
    else if (!this.over) this.state = state.state;
  }

  /** Somebody presses Cancel: so it is shown at once, and by the bus' word for good. */
  stop() {
    if (this.state !== "running" && this.state !== "lost") return () => undefined;
    const former = this.state;
    this.state = "stopping";
    return () => {
      if (this.state === "stopping") this.state = former;
    };
  }

  get over() {
    return ENDS.has(this.state);
  }

  get writing() {
    return this.state === "running" && this.documents.size >= this.total;
  }

  /** Which part of writing the index. */
  get stage() {
    return STAGES[this.writer?.part?.name ?? ""] ?? "writing the index";
  }

  /** What runs. @returns {Row[]} */
  get rows() {
    if (this.over) return [];
    const rows = [...this.batches.values()].sort((one, other) => one.batch - other.batch).map(row);
    if (this.writing && this.writer) rows.push({ key: "index", label: "Index", name: this.stage, task: this.writer.task });
    return rows;
  }

  /** From 0 to 1; 1 only when the index is there. */
  get fraction() {
    if (this.state === "ready") return 1;
    return this.total ? (READING * this.documents.size) / this.total + (1 - READING) * Math.min(this.writer?.share ?? 0, 0.99) : 0;
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

  /** The process may be gone that read it: which document that was, its last progress tells. @param {import("./events.js").TaskFailed} failed @param {number} time */
  #taskFailed({ task, error }, time) {
    const batch = [...this.batches.values()].find((batch) => batch.task === task);
    if (batch) this.batches.delete(batch.batch);
    const trouble = batch ? `${batch.document}: ${error}` : error;
    this.happened.push({ word: "task", time, text: `A task has failed. ${trouble}` });
  }

  /** The bus says how it stands. @param {Stand} state @param {number} time @param {string} text @param {string} [word] */
  #turn(state, time, text, word = state) {
    if (this.over) return;
    this.happened.push({ word, time, text });
    if (ENDS.has(state)) this.#end(state, time);
    else this.state = state;
  }

  /** @param {Stand} state @param {number} time */
  #end(state, time) {
    this.state = state;
    this.#ended = time;
    this.batches.clear();
  }
}

/** @param {Batch} batch @returns {Row} */
function row({ batch, task, document, done, total }) {
  const label = total > 1 ? `Batch ${batch}, ${done + 1} of ${total}` : `File ${batch}`;
  return { key: String(batch), label, name: document, task };
}

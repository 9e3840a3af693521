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
 * @property {PageState} state
 * @property {number} terms
 * @property {Omit<Document, "offset">[]} documents
 */

/** @typedef {import("./events.js").Events} Events */
/** @typedef {import("/client.js").AnyEvent<Events>} AnyEvent */
/** @typedef {import("./events.js").BatchProgress} Batch */
/** @typedef {import("./events.js").TaskProgress} TaskProgress */

/** `stopping`: somebody has pressed Cancel; `lost`: its worker is gone. @typedef {"running" | "stopping" | "lost" | "ready" | "failed" | "cancelled"} PageState */
/** Something that went otherwise than the bar shows. @typedef {{kind: string, time: number, text: string}} Incident */
/** A task that runs. @typedef {{key: string, label: string, name: string, task: string}} Row */

const FINAL_STATES = new Set(["ready", "failed", "cancelled"]);
/** The stages of the task that writes the index. @type {Record<string, string>} */
const STAGES = { collect: "collecting the passages", index: "writing the passages", terms: "counting the terms" };

// How far back the rate looks.
const WINDOW_MS = 4000;
// Writing the index is the last part of the bar, and a small one of the work.
const READING_FRACTION = 0.95;

export class Operation {
  /** @type {Map<string, Document>} in order of arrival */
  documents = new Map();
  /** @type {Map<number, Batch>} what is being read now */
  batches = new Map();
  /** @type {PageState} */
  state = "running";
  /** @type {Incident[]} */
  incidents = [];
  failed = 0;
  words = 0;
  terms = 0;
  /** Events about documents that an event had listed already: none. What the site told after a gap may be told again. */
  repeats = 0;
  /** The task that writes the index, as it has told last. @type {TaskProgress | undefined} */
  indexTask;
  /** Raised when the list begins anew. */
  revision = 0;
  #provisional = false;
  #startTime = 0;
  #endTime = 0;
  /** @type {number[]} when the latest documents were done, by the worker's clock */
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
      case "operation.lost":
        // What was being read is read by nobody now.
        this.batches.clear();
        this.#changeState("lost", event.time, "The worker is gone. What it had begun comes again as soon as there is another one.");
        break;
      case "operation.resumed":
        this.#changeState("running", event.time, "A worker has taken up again what was lost.", "resumed");
        break;
      case "operation.cancelling":
        this.#changeState("stopping", event.time, "Stopping: no document is begun any more, those that are being read are finished.");
        break;
      case "operation.cancelled":
        this.#changeState("cancelled", event.time, "Cancelled. What is done stays.");
        break;
      case "index.ready":
        this.terms = event.data.terms;
        this.#finish("ready", event.time);
        break;
      case "operation.failed":
        this.#changeState("failed", event.time, "Failed. What is done stays; an index is written only from all of it.");
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
    if (FINAL_STATES.has(state.state)) this.#finish(state.state, 0);
    else if (!this.over) this.state = state.state;
  }

  /** Somebody presses Cancel: so it is shown at once, and by the bus' word for good. */
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

  /** Which part of writing the index. */
  get stage() {
    return STAGES[this.indexTask?.part?.name ?? ""] ?? "writing the index";
  }

  /** What runs. @returns {Row[]} */
  get rows() {
    if (this.over) return [];
    const rows = [...this.batches.values()].sort((one, other) => one.batch - other.batch).map(row);
    if (this.writing && this.indexTask) rows.push({ key: "index", label: "Index", name: this.stage, task: this.indexTask.task });
    return rows;
  }

  /** From 0 to 1; 1 only when the index is there. */
  get fraction() {
    if (this.state === "ready") return 1;
    return this.total ? (READING_FRACTION * this.documents.size) / this.total + (1 - READING_FRACTION) * Math.min(this.indexTask?.share ?? 0, 0.99) : 0;
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

  /** The process may be gone that read it: which document that was, its last progress tells. @param {import("./events.js").TaskFailed} failed @param {number} time */
  #taskFailed({ task, error }, time) {
    const batch = [...this.batches.values()].find((batch) => batch.task === task);
    if (batch) this.batches.delete(batch.batch);
    const trouble = batch ? `${batch.document}: ${error}` : error;
    this.incidents.push({ kind: "task", time, text: `A task has failed. ${trouble}` });
  }

  /** The bus says how it stands. @param {PageState} state @param {number} time @param {string} text @param {string} [kind] */
  #changeState(state, time, text, kind = state) {
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

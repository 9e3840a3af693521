// Draws an operation. It draws at most once per frame, independent of the number of events.
import { count, element, figure, make, write } from "./dom.js";

/** @typedef {import("./operation_state.js").Operation} Operation */
/** @typedef {import("./operation_state.js").Document} Document */

const ROWS = 2;
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export class OperationView {
  /** @type {Operation | undefined} */
  #operation;
  #drawn = 0;
  #revision = 0;
  #scheduled = false;
  #announcedQuarter = 0;
  #list = element("documents");
  #scroll = element("documents-scroll");
  #card = element("operation");
  #progress = element("progress", HTMLProgressElement);

  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();

  /** The URL of Flower. Empty without Flower. */
  flower = "";

  /** Whether the connection is open. Without it the page shows no rate. */
  #live = false;

  /** Called once when the operation has ended. */
  onEnded = () => {};

  /** @param {Operation} operation */
  show(operation) {
    this.#operation = operation;
    this.#announcedQuarter = 0;
    for (const item of this.#rows.values()) item.remove();
    this.#rows.clear();
    this.#clear();
    this.#card.hidden = element("outcome").hidden = false;
    delete this.#card.dataset.state;
    this.draw();
  }

  /** @param {boolean} live */
  set live(live) {
    this.#live = live;
    this.draw();
  }

  hide() {
    this.#operation = undefined;
    this.#card.hidden = element("outcome").hidden = true;
    document.title = "Semantik";
  }

  /** Schedules one drawing. */
  draw() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const now = () => {
      this.#scheduled = false;
      if (this.#operation) this.#draw(this.#operation);
    };
    // A hidden tab has no frames, but its title must change.
    if (document.hidden) setTimeout(now, 500);
    else requestAnimationFrame(now);
  }

  /** @param {Operation} operation */
  #draw(operation) {
    this.#documents(operation);
    this.#figures(operation);
    this.#running(operation);
    this.#incidents(operation);
    this.#announce(operation);
    if (this.#card.dataset.state !== operation.state) {
      this.#card.dataset.state = operation.state;
      if (operation.over) this.onEnded();
    }
  }

  #clear() {
    this.#drawn = this.#revision = 0;
    this.#list.replaceChildren();
    element("failures").querySelector("ul")?.replaceChildren();
    element("incidents").replaceChildren();
  }

  /** @param {Operation} operation */
  #documents({ documents, repeats, failed, revision }) {
    if (revision !== this.#revision) this.#clear();
    this.#revision = revision;
    const fresh = [...documents.values()].slice(this.#drawn);
    this.#drawn = documents.size;
    this.#list.dataset.repeats = String(repeats);
    if (!fresh.length) return;
    const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 8;
    this.#list.append(...fresh.map(row));
    if (atEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
    const failures = element("failures");
    failures.hidden = !failed;
    write(element("failures-title"), `${count(failed, "document")} failed, the others are not affected`);
    failures.querySelector("ul")?.append(...fresh.filter(({ state }) => state === "failed").map(failure));
  }

  /** @param {Operation} operation */
  #figures(operation) {
    const { documents, fraction, total, state, words, over } = operation;
    const percent = `${Math.floor(fraction * 100)} %`;
    write(element("operation-title"), operation.label);
    write(element("percent"), percent);
    this.#progress.value = fraction;
    this.#progress.dataset.done = String(documents.size);
    document.title = over ? "Semantik" : `${percent} · Semantik`;
    const of = `${figure(documents.size)} of ${count(total, "document")}`;
    write(element("count"), operation.writing ? `${of} read, ${operation.stage}` : over ? outcome(operation) : of);
    const { rate, left } = speedTexts(operation, this.#live);
    write(element("rate"), over ? count(words, "word") : rate);
    write(element("left"), state === "ready" ? count(operation.terms, "term") : left);
    const cancel = element("cancel", HTMLButtonElement);
    element("controls").hidden = over;
    cancel.disabled = state === "stopping";
    write(cancel, state === "stopping" ? "Stopping …" : "Cancel");
  }

  /** Updates the rows in place, so that their links stay clickable. @param {Operation} operation */
  #running(operation) {
    const rows = operation.rows.slice(-ROWS);
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, item] of this.#rows) {
      if (!keys.has(key)) item.remove(), this.#rows.delete(key);
    }
    for (const { key, label, name, task } of rows) {
      const item = this.#rows.get(key) ?? this.#runningItem(key);
      for (const [part, text] of Object.entries({ batch: label, name })) write(/** @type {HTMLElement} */ (item.querySelector(`.${part}`)), text);
      const link = item.querySelector("a");
      if (link) link.href = new URL(`task/${encodeURIComponent(task)}`, this.flower).href;
    }
  }

  /** @param {string} key */
  #runningItem(key) {
    const item = make("li", "", "");
    item.append(make("span", "batch", ""), make("span", "name", ""));
    if (this.flower) {
      const link = Object.assign(document.createElement("a"), { target: "_blank", rel: "noreferrer", textContent: "Flower" });
      link.ariaLabel = "This task in Flower";
      item.append(link);
    }
    this.#rows.set(key, item);
    element("batches").append(item);
    return item;
  }

  /** @param {Operation} operation */
  #incidents({ incidents }) {
    const list = element("incidents");
    list.append(...incidents.slice(list.childElementCount).map(incidentItem));
    list.hidden = !incidents.length;
  }

  /** Announces each quarter to screen readers. An announcement per document would be too much. @param {Operation} operation */
  #announce({ state, fraction, failed, total, over, incidents }) {
    // The list of incidents is a live region itself.
    if (incidents.length && state !== "ready") return;
    const quarter = over ? 5 : Math.floor(fraction * 4);
    if (quarter === this.#announcedQuarter) return;
    this.#announcedQuarter = quarter;
    const failures = failed ? ` ${count(failed, "document")} failed.` : "";
    if (state === "ready") write(element("announcer"), `Finished: ${count(total, "document")}.${failures} The search is ready.`);
    else if (over) write(element("announcer"), state === "failed" ? "Indexing has failed." : "Indexing was cancelled.");
    else write(element("announcer"), `${quarter * 25} percent done.${failures}`);
  }
}

/** The texts of rate and remaining time: measured for documents, reported by the task for the index. @param {Operation} operation @param {boolean} live */
function speedTexts({ state, writing, indexTask, rate, secondsLeft }, live) {
  const [speed, left, unit] = writing ? [indexTask?.part?.rate, indexTask?.left, ` ${indexTask?.part?.unit ?? ""}`] : [rate, secondsLeft, ""];
  const moving = state === "running" && live;
  return {
    rate: moving && speed ? `${speed < 10 ? speed.toFixed(1) : figure(Math.round(speed))}${unit.trimEnd()} per second` : "",
    left: moving && typeof left === "number" ? `${duration(Math.max(1, Math.ceil(left)))} left` : "",
  };
}

/** @param {Operation} operation */
function outcome({ state, documents, failed, total, seconds }) {
  const of = `after ${figure(documents.size)} of ${count(total, "document")}`;
  if (state === "failed") return `Failed ${of}`;
  if (state === "cancelled") return `Cancelled ${of}`;
  const took = seconds === undefined ? "" : ` in ${duration(seconds)}`;
  return `${count(documents.size - failed, "document")} indexed${took}`;
}

/** @param {Document} document */
function row({ document, state, words, reason, offset }) {
  const item = make("li", "", "");
  Object.assign(item.dataset, { document, state, offset });
  const sign = make("span", "sign", state === "failed" ? "✕" : "✓");
  sign.ariaHidden = "true";
  const name = make("span", "name", document);
  // The page cuts a long name, so the tooltip has all of it.
  name.title = reason ? `${document} ${reason}` : document;
  item.append(sign, name, make("span", "words", state === "failed" ? "failed" : count(words, "word")));
  return item;
}

/** @param {import("./operation_state.js").Incident} incidentItem */
function incidentItem({ kind, time, text }) {
  const item = make("li", "", "");
  item.dataset.kind = kind;
  item.append(make("time", "", clock.format(time)), ` ${text}`);
  return item;
}

/** @param {Document} document */
function failure({ document, reason }) {
  const item = make("li", "", "");
  item.dataset.document = document;
  item.append(make("span", "name", document), ` ${reason}`);
  return item;
}

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < 9.95) return `${seconds < 1 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}

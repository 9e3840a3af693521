// An operation on the page. However many events come, the page is drawn at most once per frame.
import { count, element, figure, make, write } from "./element.js";

/** @typedef {import("./operation.js").Operation} Operation */
/** @typedef {import("./operation.js").Document} Document */

const ROWS = 2;

export class View {
  /** @type {Operation | undefined} */
  #operation;
  #drawn = 0;
  #edition = 0;
  #due = false;
  #spoken = 0;
  #list = element("documents");
  #scroll = element("documents-scroll");
  #card = element("operation");
  #progress = element("progress", HTMLProgressElement);

  /** Without a connection nobody knows how fast it goes. */
  #live = false;

  /** Called once when the operation has ended. */
  ended = () => {};

  /** @param {Operation} operation */
  show(operation) {
    this.#operation = operation;
    this.#spoken = 0;
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

  /** Soon, once, whatever else comes until then. */
  draw() {
    if (this.#due) return;
    this.#due = true;
    const now = () => {
      this.#due = false;
      if (this.#operation) this.#draw(this.#operation);
    };
    // A tab in the background has no frames, but a title.
    if (document.hidden) setTimeout(now, 500);
    else requestAnimationFrame(now);
  }

  /** @param {Operation} operation */
  #draw(operation) {
    this.#documents(operation);
    this.#figures(operation);
    this.#batches(operation);
    this.#speak(operation);
    if (this.#card.dataset.state !== operation.state) {
      this.#card.dataset.state = operation.state;
      if (operation.state !== "running") this.ended();
    }
  }

  #clear() {
    this.#drawn = this.#edition = 0;
    this.#list.replaceChildren();
    element("failures").querySelector("ul")?.replaceChildren();
  }

  /** @param {Operation} operation */
  #documents({ documents, repeats, failed, edition }) {
    if (edition !== this.#edition) this.#clear();
    this.#edition = edition;
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
    const { documents, fraction, total, state, rate, secondsLeft, words } = operation;
    const percent = `${Math.floor(fraction * 100)} %`;
    write(element("operation-title"), operation.label);
    write(element("percent"), percent);
    this.#progress.value = fraction;
    this.#progress.dataset.done = String(documents.size);
    document.title = state === "running" ? `${percent} · Semantik` : "Semantik";
    const running = state === "running";
    const of = `${figure(documents.size)} of ${count(total, "document")}`;
    write(element("count"), operation.writing ? `${of} read, writing the index` : running ? of : outcome(operation));
    const moving = running && !operation.writing && this.#live;
    write(element("rate"), moving && rate ? `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} per second` : "");
    write(element("left"), moving && secondsLeft !== undefined ? `${duration(Math.max(1, Math.ceil(secondsLeft)))} left` : "");
    if (!running) write(element("rate"), `${count(words, "word")}`);
    if (state === "ready") write(element("left"), count(operation.terms, "term"));
  }

  /** @param {Operation} operation */
  #batches({ batches }) {
    const rows = [...batches.values()].sort((one, other) => one.batch - other.batch).slice(-ROWS);
    element("batches").replaceChildren(
      ...rows.map(({ batch, document, done, total }) => {
        const item = make("li", "", "");
        item.append(make("span", "batch", `Batch ${batch}, ${done + 1} of ${total}`), make("span", "name", document));
        return item;
      }),
    );
  }

  /** In quarters: a voice that tells every document would be switched off. @param {Operation} operation */
  #speak({ state, fraction, failed, total }) {
    const quarter = state === "running" ? Math.floor(fraction * 4) : 5;
    if (quarter === this.#spoken) return;
    this.#spoken = quarter;
    const failures = failed ? ` ${count(failed, "document")} failed.` : "";
    if (state === "ready") write(element("announcer"), `Finished: ${count(total, "document")}.${failures} The search is open.`);
    else if (state === "failed") write(element("announcer"), "Indexing has failed.");
    else write(element("announcer"), `${quarter * 25} percent done.${failures}`);
  }
}

/** @param {Operation} operation */
function outcome({ state, documents, failed, total, seconds, trouble }) {
  if (state === "failed") return `Failed after ${figure(documents.size)} of ${count(total, "document")}${trouble && `: ${trouble}`}`;
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
  // A long name is cut off.
  name.title = reason ? `${document} ${reason}` : document;
  item.append(sign, name, make("span", "words", state === "failed" ? "failed" : count(words, "word")));
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

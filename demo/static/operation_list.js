// All operations of this visitor, as the bus knows them: also those that this page was not there for.
import { count, element, figure, make, write } from "./dom.js";

/** @typedef {import("/client.js").Operation} Operation */
/** @typedef {import("/client.js").AnyEvent<import("./events.js").Events>} AnyEvent */
/** @typedef {Pick<import("/client.js").Bus<import("./events.js").Events>, "operations">} Bus */

const SHOWN = 8;
/** @type {Record<Operation["state"], string>} */
const STATE_TEXTS = {
  queued: "Waiting",
  running: "Running",
  lost: "Worker gone",
  cancelling: "Stopping",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export class OperationList {
  #loading = false;
  #reload = false;
  /** @type {Bus | undefined} */
  #bus;
  #current = "";

  /** From now on this bus is asked. @param {Bus} bus @param {string} current the operation that is shown */
  use(bus, current) {
    this.#bus = bus;
    this.#current = current;
    // What the former bus was asked it no longer answers.
    this.#loading = this.#reload = false;
  }

  /** A word of an operation's life is a reason to ask; its progress is written down as it comes. @param {AnyEvent} event */
  onEvent(event) {
    if (event.type === "operation.progress") {
      const { operation, done, total } = event.data;
      const tasks = element("operations").querySelector(`[data-operation="${CSS.escape(operation)}"] .tasks`);
      if (tasks instanceof HTMLElement) write(tasks, taskCount(done, total));
    } else if (event.type.startsWith("operation.")) void this.refresh();
  }

  /** One question at a time, and one more if something came meanwhile. */
  async refresh() {
    const bus = this.#bus;
    this.#reload = this.#loading;
    if (!bus || this.#loading) return;
    this.#loading = true;
    try {
      const found = await bus.operations({ limit: SHOWN });
      if (bus === this.#bus) this.#show(found);
    } catch (error) {
      // Without an answer the list stays as it was; the connection itself says what is wrong.
      console.warn("operations:", error);
    }
    if (bus !== this.#bus) return;
    this.#loading = false;
    if (this.#reload) void this.refresh();
  }

  /** @param {readonly Operation[]} found */
  #show(found) {
    element("operations-card").hidden = !found.length;
    element("operations").replaceChildren(...found.map((operation) => item(operation, this.#current)));
  }
}

/** @param {number} done @param {number} total */
function taskCount(done, total) {
  return `${figure(done)} of ${count(total, "task")}`;
}

/** @param {Operation} operation @param {string} current */
function item({ id, label, state, done, total, queued }, current) {
  const row = make("li", "", "");
  Object.assign(row.dataset, { operation: id, state });
  const link = make("a", "", label);
  link.setAttribute("href", `#operation=${id}`);
  if (id === current) link.setAttribute("aria-current", "true");
  row.append(make("time", "", clock.format(queued)), link, make("span", "tasks", taskCount(done, total)), make("span", "state", STATE_TEXTS[state]));
  return row;
}

// The list of all operations of this visitor, from the bus.
import { count, element, figure, make, write } from "./dom.js";

/** @typedef {import("/client.js").Operation} Operation */
/** @typedef {import("/client.js").AnyEvent<import("./events.js").Events>} AnyEvent */
/** @typedef {Pick<import("/client.js").Bus<import("./events.js").Events>, "operations">} Bus */

const SHOWN = 8;
/** @type {Record<Operation["state"], string>} */
const STATE_TEXTS = {
  queued: "Waiting",
  running: "Running",
  lost: "Worker lost",
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

  /** Uses another bus. @param {Bus} bus @param {string} current id of the operation on the page */
  use(bus, current) {
    this.#bus = bus;
    this.#current = current;
    // The previous bus is closed and does not reply.
    this.#loading = this.#reload = false;
  }

  /** Shows progress directly. Other events of an operation reload the list. @param {AnyEvent} event */
  onEvent(event) {
    if (event.type === "operation.progress") {
      const { operation, done, total } = event.data;
      const tasks = element("operations").querySelector(`[data-operation="${CSS.escape(operation)}"] .tasks`);
      if (tasks instanceof HTMLElement) write(tasks, taskCount(done, total));
    } else if (event.type.startsWith("operation.")) void this.refresh();
  }

  /** Loads the list. A call during a load causes one more load. */
  async refresh() {
    const bus = this.#bus;
    this.#reload = this.#loading;
    if (!bus || this.#loading) return;
    this.#loading = true;
    try {
      const found = await bus.operations({ limit: SHOWN });
      if (bus === this.#bus) this.#show(found);
    } catch (error) {
      // The list stays as it is. The connection status shows the cause.
      console.warn("cannot list operations:", error);
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

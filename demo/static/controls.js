// The buttons of a running operation: cancel it, or kill its worker.
import { SourcePicker } from "./source_picker.js";
import { element, write } from "./dom.js";
import { killWorker, SiteError } from "./site_api.js";

export class Controls {
  #kill = element("kill-worker", HTMLButtonElement);

  /** Cancels the operation on the page. */
  cancel = async () => {};

  constructor() {
    element("cancel").addEventListener("click", () => void this.cancel());
    this.#kill.addEventListener("click", () => void this.#killed());
  }

  /** @param {import("./site_api.js").Login} login */
  allow({ trouble }) {
    this.#kill.hidden = element("kill-note").hidden = !trouble;
  }

  async #killed() {
    this.#kill.disabled = true;
    write(this.#kill, "Killing …");
    SourcePicker.showProblem("");
    try {
      await killWorker();
    } catch (error) {
      SourcePicker.showProblem(error instanceof SiteError ? `Cannot kill the worker: ${error.message}.` : String(error));
    } finally {
      this.#kill.disabled = false;
      write(this.#kill, "Kill the worker");
    }
  }
}

// What one can do to an operation that runs: stop it, or kill the worker under it.
import { SourcePicker } from "./source_picker.js";
import { element, write } from "./dom.js";
import { killWorker, SiteError } from "./site_api.js";

export class Controls {
  #kill = element("kill-worker", HTMLButtonElement);

  /** Stops what is shown. */
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
      SourcePicker.showProblem(error instanceof SiteError ? `Not killed: ${error.message}.` : String(error));
    } finally {
      this.#kill.disabled = false;
      write(this.#kill, "Kill the worker");
    }
  }
}

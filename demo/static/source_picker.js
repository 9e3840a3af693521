// Selects the documents to index: uploaded files, or the text on this machine.
import { count, element, write } from "./dom.js";
import { indexFiles, indexInstalled, indexPoisoned, SiteError } from "./site_api.js";

/** @typedef {import("./site_api.js").Login} Login */
/** @typedef {import("./site_api.js").Started} Started */

const MEGABYTE = 1024 * 1024;

/** @param {number} bytes */
function size(bytes) {
  return bytes < MEGABYTE ? `${Math.floor(bytes / 1024)} KB` : `${Math.floor(bytes / MEGABYTE)} MB`;
}

export class SourcePicker {
  /** @type {File[]} */
  #files = [];
  /** @type {Login | undefined} */
  #limits;
  #busy = false;
  #form = element("upload");
  #input = element("file-input", HTMLInputElement);
  #button = element("index-files", HTMLButtonElement);
  #installed = element("index-installed", HTMLButtonElement);
  #poisoned = element("index-poisoned", HTMLButtonElement);

  /** @param {(started: Started) => void} onStarted */
  constructor(onStarted) {
    this.#input.addEventListener("change", () => this.#select([...(this.#input.files ?? [])]));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start(() => indexFiles(this.#files), onStarted);
    });
    this.#installed.addEventListener("click", () => void this.#start(indexInstalled, onStarted));
    this.#poisoned.addEventListener("click", () => void this.#start(indexPoisoned, onStarted));
    this.#acceptDrops();
  }

  /** @param {Login} login */
  limit(login) {
    const first = !this.#limits;
    this.#limits = login;
    // The user may have selected files before the login. Check them now.
    if (first && this.#files.length) this.#select(this.#files);
    this.#enable();
    const { installed, max_files, max_file_bytes, trouble } = login;
    element("poison").hidden = !trouble;
    write(element("installed-count"), count(installed, "document"));
    write(element("limits"), `Up to ${count(max_files, "file")} of ${size(max_file_bytes)}.`);
  }

  /** Shows a problem. An empty text hides it. @param {string} text */
  static showProblem(text) {
    const problem = element("problem");
    problem.hidden = !text;
    write(problem, text);
  }

  /** @param {File[]} files */
  #select(files) {
    const wrong = this.#exceededLimit(files);
    SourcePicker.showProblem(wrong);
    this.#files = wrong ? [] : files;
    this.#enable();
    const [first] = this.#files;
    write(element("chosen"), !first ? "No files chosen" : files.length === 1 ? first.name : count(files.length, "file"));
  }

  /** The limit that the files exceed, as a message. Checked before the upload. @param {File[]} files */
  #exceededLimit(files) {
    if (!this.#limits) return "";
    const { max_files, max_file_bytes, max_upload_bytes } = this.#limits;
    if (files.length > max_files) return `Cannot index ${count(files.length, "file")}: the limit is ${max_files}.`;
    const large = files.find(({ size }) => size > max_file_bytes);
    if (large) return `Cannot index ${large.name}: the limit for one file is ${max_file_bytes / MEGABYTE} MB.`;
    const all = files.reduce((sum, { size }) => sum + size, 0);
    return all > max_upload_bytes ? `Cannot index the files: the limit for all is ${max_upload_bytes / MEGABYTE} MB.` : "";
  }

  /** @param {() => Promise<Started>} request @param {(started: Started) => void} onStarted */
  async #start(request, onStarted) {
    this.#busy = true;
    this.#enable();
    SourcePicker.showProblem("");
    try {
      onStarted(await request());
    } catch (error) {
      SourcePicker.showProblem(error instanceof SiteError ? `Cannot start: ${error.message}.` : String(error));
    } finally {
      this.#busy = false;
      this.#enable();
    }
  }

  /** Enables the buttons after the login. Before it the site would refuse a request. */
  #enable() {
    const ready = Boolean(this.#limits) && !this.#busy;
    this.#installed.disabled = this.#poisoned.disabled = !ready;
    this.#button.disabled = !ready || !this.#files.length;
  }

  #acceptDrops() {
    const form = this.#form;
    /** @param {DragEvent} event */
    const over = (event) => {
      event.preventDefault();
      form.classList.add("over");
    };
    form.addEventListener("dragenter", over);
    form.addEventListener("dragover", over);
    form.addEventListener("dragleave", () => form.classList.remove("over"));
    form.addEventListener("drop", (event) => {
      event.preventDefault();
      form.classList.remove("over");
      const items = [...(event.dataTransfer?.items ?? [])];
      if (items.some((item) => item.webkitGetAsEntry()?.isDirectory)) SourcePicker.showProblem("Cannot index a folder: drop files instead.");
      else this.#select([...(event.dataTransfer?.files ?? [])]);
    });
    // Without this, a file dropped outside the form would replace the page.
    for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
  }
}

// Choosing what to index: files, by dialog or by drop, or the text that is on this machine.
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
    // Somebody may have been quicker than the login: what they chose is held against the limits now.
    if (first && this.#files.length) this.#select(this.#files);
    this.#enable();
    const { installed, max_files, max_file_bytes, trouble } = login;
    element("poison").hidden = !trouble;
    write(element("installed-count"), count(installed, "document"));
    write(element("limits"), `Up to ${count(max_files, "file")} of ${size(max_file_bytes)}.`);
  }

  /** What cannot be done, and why; nothing: all is well. @param {string} text */
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

  /** Said at once, rather than after the upload. @param {File[]} files */
  #exceededLimit(files) {
    if (!this.#limits) return "";
    const { max_files, max_file_bytes, max_upload_bytes } = this.#limits;
    if (files.length > max_files) return `${count(files.length, "file")} are too many: the limit is ${max_files}.`;
    const large = files.find(({ size }) => size > max_file_bytes);
    if (large) return `${large.name} is too large: the limit for one file is ${max_file_bytes / MEGABYTE} MB.`;
    const all = files.reduce((sum, { size }) => sum + size, 0);
    return all > max_upload_bytes ? `Together the files are too large: the limit is ${max_upload_bytes / MEGABYTE} MB.` : "";
  }

  /** @param {() => Promise<Started>} request @param {(started: Started) => void} onStarted */
  async #start(request, onStarted) {
    this.#busy = true;
    this.#enable();
    SourcePicker.showProblem("");
    try {
      onStarted(await request());
    } catch (error) {
      SourcePicker.showProblem(error instanceof SiteError ? `Not started: ${error.message}.` : String(error));
    } finally {
      this.#busy = false;
      this.#enable();
    }
  }

  /** Who is not logged in yet could only be refused. */
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
      if (items.some((item) => item.webkitGetAsEntry()?.isDirectory)) SourcePicker.showProblem("Folders cannot be dropped here, only files.");
      else this.#select([...(event.dataTransfer?.files ?? [])]);
    });
    // A file that misses the field must not replace the page.
    for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
  }
}

// Requests to the site.

/**
 * @typedef {object} Login
 * @property {string} user
 * @property {string} token
 * @property {string} gateway
 * @property {string} flower empty without Flower
 * @property {boolean} trouble whether this page may kill the worker
 * @property {number} installed
 * @property {number} max_files
 * @property {number} max_file_bytes
 * @property {number} max_upload_bytes
 */

/** @typedef {{operation: string, cursor: string, label: string, total: number}} Started */
/** @typedef {{total: number, hits: {document: string, snippet: string}[]}} Found */
/** @typedef {import("./operation_state.js").State} State */

/** The site refused a request or is unreachable. The page shows the message. `status` is 0 without a response. */
export class SiteError extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @template T
 * @param {string} path @param {RequestInit} [init] @returns {Promise<T>}
 */
async function ask(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (init?.signal?.aborted) throw error;
    throw new SiteError("the site is unreachable", 0);
  }
  if (response.ok) return response.json();
  const { detail } = await response.json().catch(() => ({}));
  throw new SiteError(typeof detail === "string" ? detail : `the site returned HTTP ${response.status}`, response.status);
}

/** @returns {Promise<Login>} */
export const login = () => ask("/login", { method: "POST" });

/** @returns {Promise<Started>} */
export const indexInstalled = () => ask("/index?source=installed", { method: "POST" });

/** @returns {Promise<Started>} */
export const indexPoisoned = () => ask("/index?source=poisoned", { method: "POST" });

/** @returns {Promise<unknown>} */
export const killWorker = () => ask("/worker/kill", { method: "POST" });

/** @param {readonly File[]} files @returns {Promise<Started>} */
export function indexFiles(files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return ask("/index", { method: "POST", body: form });
}

/** @param {string} operation @returns {Promise<State>} */
export const operationState = (operation) => ask(`/operations/${encodeURIComponent(operation)}`);

/** @param {string} operation @param {string} query @param {AbortSignal} signal @returns {Promise<Found>} */
export const search = (operation, query, signal) =>
  ask(`/search?${new URLSearchParams({ operation, q: query })}`, { signal });

// How the connection is, in plain words. Short troubles are not worth a word.
import { element, write } from "./dom.js";

/** @typedef {import("/client.js").StatusChange} StatusChange */

const PATIENCE_MS = 400;

/** Beside the dot, and in the notice. @type {Record<string, readonly [string, string]>} */
const WORDS = {
  connecting: ["Connecting", ""],
  open: ["Live", ""],
  away: ["Gateway away", "The gateway cannot be reached. The work goes on; this page tries again and catches up by itself."],
  offline: ["Offline", "This browser is offline. The work goes on; the page catches up when the network is back."],
  degraded: ["Waiting for Redis", "The gateway has lost Redis. The connection stays, and goes on when Redis is back."],
  closed: ["Disconnected", ""],
};

export class Connection {
  #shown = "connecting";
  #seen = false;
  /** @type {number | undefined} */
  #timer;

  /** @param {StatusChange} change */
  take(change) {
    clearTimeout(this.#timer);
    const state = this.#state(change);
    this.#seen ||= state === "open";
    if (state === "open" || state === "closed") this.#show(state, change);
    else this.#timer = setTimeout(() => this.#show(state, change), PATIENCE_MS);
  }

  /** @param {StatusChange} change */
  #state({ status }) {
    if (status === "open" || status === "degraded" || status === "closed") return status;
    if (!navigator.onLine) return "offline";
    // While it tries, it is away: the words do not change at each attempt.
    return status === "waiting" || this.#seen || this.#shown === "away" ? "away" : "connecting";
  }

  /** @param {string} state @param {StatusChange} change */
  #show(state, { transport, reason = "" }) {
    this.#shown = state;
    const [short, long] = WORDS[state] ?? ["", ""];
    const sse = state === "open" && transport === "sse";
    write(element("status-text"), sse ? "Live, by server-sent events" : short);
    const status = element("status");
    status.dataset.status = state === "offline" ? "away" : state;
    status.dataset.transport = transport;
    const away = element("away");
    write(away, state === "closed" ? `The connection has ended: ${reason || "no reason given"}. Reload the page to connect again.` : long);
    away.hidden = !away.textContent;
  }
}

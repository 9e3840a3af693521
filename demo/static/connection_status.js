// How the connection is, in plain words. Short troubles are not worth a word.
import { element, write } from "./dom.js";

/** @typedef {import("/client.js").StatusChange} StatusChange */

const SHOW_DELAY_MS = 400;

/** Beside the dot, and in the notice. @type {Record<string, readonly [string, string]>} */
const TEXTS = {
  connecting: ["Connecting", ""],
  open: ["Live", ""],
  unreachable: ["Gateway away", "The gateway cannot be reached. The work goes on; this page tries again and catches up by itself."],
  offline: ["Offline", "This browser is offline. The work goes on; the page catches up when the network is back."],
  degraded: ["Waiting for Redis", "The gateway has lost Redis. The connection stays, and goes on when Redis is back."],
  closed: ["Disconnected", ""],
};

export class ConnectionStatus {
  #shown = "connecting";
  #wasOpen = false;
  /** @type {number | undefined} */
  #timer;

  /** @param {StatusChange} change */
  update(change) {
    clearTimeout(this.#timer);
    const state = this.#state(change);
    this.#wasOpen ||= state === "open";
    if (state === "open" || state === "closed") this.#show(state, change);
    else this.#timer = setTimeout(() => this.#show(state, change), SHOW_DELAY_MS);
  }

  /** @param {StatusChange} change */
  #state({ status }) {
    if (status === "open" || status === "degraded" || status === "closed") return status;
    if (!navigator.onLine) return "offline";
    // While it tries, it is away: the words do not change at each attempt.
    return status === "waiting" || this.#wasOpen || this.#shown === "unreachable" ? "unreachable" : "connecting";
  }

  /** @param {string} state @param {StatusChange} change */
  #show(state, { transport, reason = "" }) {
    this.#shown = state;
    const [short, long] = TEXTS[state] ?? ["", ""];
    const sse = state === "open" && transport === "sse";
    write(element("status-text"), sse ? "Live, by server-sent events" : short);
    const status = element("status");
    status.dataset.status = state === "offline" ? "unreachable" : state;
    status.dataset.transport = transport;
    const notice = element("connection-notice");
    write(notice, state === "closed" ? `The connection has ended: ${reason || "no reason given"}. Reload the page to connect again.` : long);
    notice.hidden = !notice.textContent;
  }
}

// Shows the status of the connection. Short interruptions are not shown.
import { element, write } from "./dom.js";

/** @typedef {import("/client.js").StatusChange} StatusChange */

const SHOW_DELAY_MS = 400;

/** The text next to the dot, and the text of the notice. @type {Record<string, readonly [string, string]>} */
const TEXTS = {
  connecting: ["Connecting", ""],
  open: ["Live", ""],
  unreachable: ["Gateway unreachable", "The gateway is unreachable. The tasks continue. This page reconnects and receives the missed events."],
  offline: ["Offline", "This browser is offline. The tasks continue. This page receives the missed events when it is online."],
  degraded: ["Waiting for Redis", "The gateway cannot reach Redis. Live events continue when Redis is reachable."],
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
    // The text stays the same during the attempts to reconnect.
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

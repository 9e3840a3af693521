import type { TransportName } from "../types.js";

// Consecutive failures before the client tries SSE. If a WebSocket has never opened, a proxy
// probably blocks WebSockets. If one has opened before, the gateway is probably down, and the
// client waits longer.
const FAILURES_BEFORE_SSE = 2;
const FAILURES_BEFORE_SSE_ONCE_OPENED = 6;
// While SSE works, every fifth reconnect tries WebSocket.
const WEBSOCKET_PROBE_INTERVAL = 5;

/** Chooses the transport of the next attempt. */
export class Fallback {
  readonly #preference: "auto" | TransportName;
  #failures = 0;
  #opened = false;
  #onSse = false;
  #reconnects = 0;

  constructor(preference: "auto" | TransportName) {
    this.#preference = preference;
  }

  next(): TransportName {
    if (this.#preference !== "auto") return this.#preference;
    if (this.#onSse) return ++this.#reconnects % WEBSOCKET_PROBE_INTERVAL ? "sse" : "websocket";
    const surplus = this.#failures - (this.#opened ? FAILURES_BEFORE_SSE_ONCE_OPENED : FAILURES_BEFORE_SSE);
    return surplus >= 0 && surplus % 2 === 0 ? "sse" : "websocket";
  }

  /** A frame has arrived over the transport. */
  succeeded(transport: TransportName): void {
    this.#failures = 0;
    this.#onSse = transport === "sse";
    this.#opened ||= !this.#onSse;
  }

  /** The attempt ended before a frame arrived. */
  failed(): void {
    this.#failures++;
  }
}

import type { TransportName } from "../types.js";

// Failures in a row before SSE is tried: few where WebSocket has never opened, as with a proxy that lets
// none through; many where it has, as then the gateway is more likely just away.
const FAILURES_BEFORE_SSE = 2;
const FAILURES_BEFORE_SSE_ONCE_OPENED = 6;
// On SSE, every so many reconnects try WebSocket again.
const WEBSOCKET_PROBE_INTERVAL = 5;

/** Which transport to try next. */
export class Fallback {
  #failures = 0;
  #opened = false;
  #onSse = false;
  #reconnects = 0;

  constructor(private readonly preference: "auto" | TransportName) {}

  next(): TransportName {
    if (this.preference !== "auto") return this.preference;
    if (this.#onSse) return ++this.#reconnects % WEBSOCKET_PROBE_INTERVAL ? "sse" : "websocket";
    const surplus = this.#failures - (this.#opened ? FAILURES_BEFORE_SSE_ONCE_OPENED : FAILURES_BEFORE_SSE);
    return surplus >= 0 && surplus % 2 === 0 ? "sse" : "websocket";
  }

  /** The transport has got something through. */
  succeeded(transport: TransportName): void {
    this.#failures = 0;
    this.#onSse = transport === "sse";
    this.#opened ||= !this.#onSse;
  }

  /** It ended without anything having come through. */
  failed(): void {
    this.#failures++;
  }
}

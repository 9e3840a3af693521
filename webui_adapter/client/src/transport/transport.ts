import type { TransportName } from "../types.js";
import type { Command } from "../protocol/messages.js";

/** What a connection begins with. */
export interface Handshake {
  readonly token: string | undefined;
  readonly cursor: string;
  readonly topics: readonly string[];
}

/** What a connection reports. Whoever listens ignores what comes after `closed` or after `Link.close()`. */
export interface TransportListener {
  /** One frame's text. */
  onFrame(text: string): void;
  /** A sign of life that is no frame. */
  onActivity(): void;
  onClose(code: number, reason: string, retryAfterMs?: number): void;
}

export interface Transport {
  send(command: Command): void;
  close(): void;
}

/** Opens a connection; never throws for the network's sake, but says `closed`. */
export type OpenTransport = (handshake: Handshake, listener: TransportListener) => Transport;

export type Transports = Readonly<Record<TransportName, OpenTransport>>;

export const ABNORMAL_CLOSURE = 1006;

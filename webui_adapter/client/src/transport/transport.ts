import type { Command } from "../protocol/messages.js";
import type { TransportName } from "../types.js";

/** The data that the client sends when it opens a connection. */
export interface Handshake {
  readonly token: string | undefined;
  readonly cursor: string;
  readonly topics: readonly string[];
}

/**
 * Receives the events of a transport. It ignores events after `onClose` and after
 * `Transport.close()`.
 */
export interface TransportListener {
  /** One frame has arrived. */
  onFrame(text: string): void;
  /** Bytes have arrived: the connection is alive. */
  onActivity(): void;
  onClose(code: number, reason: string, retryAfterMs?: number): void;
}

export interface Transport {
  send(command: Command): void;
  close(): void;
}

/** Opens a connection. It does not throw for network errors but calls `onClose`. */
export type OpenTransport = (handshake: Handshake, listener: TransportListener) => Transport;

export type Transports = Readonly<Record<TransportName, OpenTransport>>;

/** Close code of a connection that ended without a close frame (RFC 6455, section 7.1.5). */
export const ABNORMAL_CLOSURE = 1006;

// Server-sent events over `fetch`: the browser's own EventSource can send no Authorization header,
// and does not show the status that it was refused with.
import { connectionUrl } from "./urls.js";
import { SseParser } from "./sse_parser.js";
import { ABNORMAL_CLOSURE, type OpenTransport, type TransportListener } from "./transport.js";
import type { Command, Hello } from "../protocol/messages.js";

type Request = Omit<RequestInit, "headers"> & { readonly headers: Readonly<Record<string, string>> };

export function fetchEventSource(prefix: URL): OpenTransport {
  return ({ token, cursor, topics }, listener) => {
    const abort = new AbortController();
    // Cookies also for a gateway of another origin; with a token they are not needed, and CORS is simpler.
    const request: Request =
      token === undefined
        ? { headers: {}, credentials: "include", signal: abort.signal }
        : { headers: { Authorization: `Bearer ${token}` }, credentials: "same-origin", signal: abort.signal };
    let session = "";
    // One after the other: side by side, the later one of two commands about the same pattern may be the first to arrive.
    let lastCommand = Promise.resolve();

    read(connectionUrl(prefix, "/sse", cursor, topics), request, listener, (id) => (session = id)).catch((error: unknown) =>
      listener.onClose(ABNORMAL_CLOSURE, String(error)),
    );
    return {
      send: (command) => {
        lastCommand = lastCommand.then(() => post(connectionUrl(prefix, `/sessions/${session}/commands`), request, listener, command));
      },
      close: () => abort.abort(),
    };
  };
}

/** Reads the stream to its end. */
async function read(url: URL, request: Request, listener: TransportListener, onSession: (session: string) => void): Promise<void> {
  const response = await fetch(url, { ...request, cache: "no-store" });
  const { status, body } = response;
  if (status !== 200 || !body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
    // A 200 that is no stream is somebody else's page, such as a hotel's login.
    const retryAfterMs = Number(response.headers.get("retry-after")) * 1000 || 0;
    return listener.onClose(status === 200 ? ABNORMAL_CLOSURE : status, `HTTP ${status}`, retryAfterMs);
  }
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return listener.onClose(ABNORMAL_CLOSURE, "the stream ended");
    listener.onActivity();
    for (const { event, data } of parser.push(decoder.decode(value, { stream: true }))) {
      if (event === "bus.close") {
        const { code, reason = "" } = dataOf(data) as { code: number; reason?: string };
        return listener.onClose(code, reason);
      }
      if (event === "bus.hello") onSession((dataOf(data) as Hello).session);
      listener.onFrame(data);
    }
  }
}

/** The answer comes over the stream; only a refusal comes here. */
async function post(url: URL, request: Request, listener: TransportListener, command: Command): Promise<void> {
  try {
    const response = await fetch(url, {
      ...request,
      method: "POST",
      headers: { ...request.headers, "Content-Type": "application/json" },
      body: JSON.stringify(command),
    });
    if (response.ok) return;
    const { status } = response;
    // 404: this instance does not hold the session. A new stream asks for everything in its query.
    if (status === 404 || status >= 500) return listener.onClose(ABNORMAL_CLOSURE, `command: HTTP ${status}`);
    const error = dataOf(await response.text());
    listener.onFrame(JSON.stringify({ type: "bus.error", data: { ref: command.ref, ...error } }));
  } catch (error) {
    listener.onClose(ABNORMAL_CLOSURE, `command: ${String(error)}`);
  }
}

function dataOf(frame: string): object {
  return (JSON.parse(frame) as { data: object }).data;
}

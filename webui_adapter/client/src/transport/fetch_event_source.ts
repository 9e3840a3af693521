// Server-sent events over `fetch`. The browser's EventSource cannot send an Authorization header
// and does not expose the HTTP status of a refused request.
import { REVOKED } from "../protocol/close_codes.js";
import type { Command, Hello } from "../protocol/messages.js";
import { SseParser } from "./sse_parser.js";
import { ABNORMAL_CLOSURE, type OpenTransport, type TransportListener } from "./transport.js";
import { connectionUrl } from "./urls.js";

type Request = Omit<RequestInit, "headers"> & { readonly headers: Readonly<Record<string, string>> };

/** Opens SSE connections: a stream for events, and one POST request for each command. */
export function fetchEventSource(prefix: URL): OpenTransport {
  return ({ token, cursor, topics }, listener) => {
    const abort = new AbortController();
    // A gateway of another origin needs `include` to receive cookies. With a token no cookies are
    // needed, and the gateway needs fewer CORS headers.
    const request: Request =
      token === undefined
        ? { headers: {}, credentials: "include", signal: abort.signal }
        : { headers: { Authorization: `Bearer ${token}` }, credentials: "same-origin", signal: abort.signal };
    let session = "";
    // Each command waits for the one before it. Parallel requests may arrive in another order.
    let lastCommand = Promise.resolve();

    const url = connectionUrl(prefix, "/sse", cursor, topics);
    read(url, request, listener, (id) => (session = id)).catch((error: unknown) =>
      listener.onClose(ABNORMAL_CLOSURE, String(error)),
    );
    return {
      send: (command) => {
        lastCommand = lastCommand.then(() => {
          return post(connectionUrl(prefix, `/sessions/${session}/commands`), request, listener, command);
        });
      },
      close: () => abort.abort(),
    };
  };
}

/** Reads the stream to its end. */
async function read(
  url: URL,
  request: Request,
  listener: TransportListener,
  onSession: (session: string) => void,
): Promise<void> {
  const response = await fetch(url, { ...request, cache: "no-store" });
  const { status, body } = response;
  if (status !== 200 || !body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
    // Status 200 without a stream comes from another server, such as a captive portal.
    const retryAfterMs = Number(response.headers.get("retry-after")) * 1000 || 0;
    const revoked = status === 401 && (await response.text()).includes('"code":"revoked"');
    const code = revoked ? REVOKED : status;
    return listener.onClose(code === 200 ? ABNORMAL_CLOSURE : code, `HTTP ${status}`, retryAfterMs);
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
      // As with a WebSocket, what a listener has scheduled comes before the next event.
      await Promise.resolve();
    }
  }
}

/** Sends a command. The reply arrives in the stream; the response only has a refusal. */
async function post(
  url: URL,
  request: Request,
  listener: TransportListener,
  command: Command,
  triesLeft = 9,
): Promise<void> {
  try {
    const response = await fetch(url, {
      ...request,
      method: "POST",
      headers: { ...request.headers, "content-type": "application/json" },
      body: JSON.stringify(command),
    });
    if (response.ok) return;
    const { status } = response;
    // Another instance has the session. The answer ends its connection, so the next one may reach it.
    if (status === 404 && triesLeft) return await post(url, request, listener, command, triesLeft - 1);
    // Only these answers hold a bus.error. After any other one a new stream sends all subscriptions
    // in its query.
    if (![400, 404, 413, 429].includes(status)) return listener.onClose(ABNORMAL_CLOSURE, `command: HTTP ${status}`);
    const error = dataOf(await response.text());
    listener.onFrame(JSON.stringify({ type: "bus.error", data: { ref: command.ref, ...error } }));
  } catch (error) {
    listener.onClose(ABNORMAL_CLOSURE, `command: ${String(error)}`);
  }
}

function dataOf(frame: string): object {
  return (JSON.parse(frame) as { data: object }).data;
}

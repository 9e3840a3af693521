// Server-sent events over `fetch`: the browser's own EventSource can send no Authorization header,
// and does not show the status that it was refused with.
import { address } from "./urls.js";
import { StreamParser } from "./sse_parser.js";
import { LOST, type Open, type Sink } from "./transport.js";
import type { Command, Hello } from "../protocol/messages.js";

type Request = Omit<RequestInit, "headers"> & { readonly headers: Readonly<Record<string, string>> };

export function eventSourceAt(prefix: URL): Open {
  return ({ token, cursor, topics }, sink) => {
    const abort = new AbortController();
    // Cookies also for a gateway of another origin; with a token they are not needed, and CORS is simpler.
    const request: Request =
      token === undefined
        ? { headers: {}, credentials: "include", signal: abort.signal }
        : { headers: { Authorization: `Bearer ${token}` }, credentials: "same-origin", signal: abort.signal };
    let session = "";
    // One after the other: side by side, the later one of two commands about the same pattern may be the first to arrive.
    let sent = Promise.resolve();

    read(address(prefix, "/sse", cursor, topics), request, sink, (id) => (session = id)).catch((error: unknown) =>
      sink.closed(LOST, String(error)),
    );
    return {
      send: (command) => {
        sent = sent.then(() => post(address(prefix, `/sessions/${session}/commands`), request, sink, command));
      },
      close: () => abort.abort(),
    };
  };
}

/** Reads the stream to its end. */
async function read(url: URL, request: Request, sink: Sink, begun: (session: string) => void): Promise<void> {
  const response = await fetch(url, { ...request, cache: "no-store" });
  const { status, body } = response;
  if (status !== 200 || !body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
    // A 200 that is no stream is somebody else's page, such as a hotel's login.
    const retryAfterMs = Number(response.headers.get("retry-after")) * 1000 || 0;
    return sink.closed(status === 200 ? LOST : status, `HTTP ${status}`, retryAfterMs);
  }
  const parser = new StreamParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return sink.closed(LOST, "the stream ended");
    sink.alive();
    for (const { event, data } of parser.push(decoder.decode(value, { stream: true }))) {
      if (event === "bus.close") {
        const { code, reason = "" } = dataOf(data) as { code: number; reason?: string };
        return sink.closed(code, reason);
      }
      if (event === "bus.hello") begun((dataOf(data) as Hello).session);
      sink.frame(data);
    }
  }
}

/** The answer comes over the stream; only a refusal comes here. */
async function post(url: URL, request: Request, sink: Sink, command: Command): Promise<void> {
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
    if (status === 404 || status >= 500) return sink.closed(LOST, `command: HTTP ${status}`);
    const refused = dataOf(await response.text());
    sink.frame(JSON.stringify({ type: "bus.error", data: { ref: command.ref, ...refused } }));
  } catch (error) {
    sink.closed(LOST, `command: ${String(error)}`);
  }
}

function dataOf(frame: string): object {
  return (JSON.parse(frame) as { data: object }).data;
}

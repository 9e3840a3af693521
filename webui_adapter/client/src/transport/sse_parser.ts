// A parser of event streams without input or output: it takes text in pieces of any size and
// returns events.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

export interface SseEvent {
  /** The name of the event. `message` if the stream has none. */
  readonly event: string;
  readonly data: string;
}

export class SseParser {
  #buffer = "";
  #event = "";
  #data: string[] = [];

  push(text: string): SseEvent[] {
    if (!text) return [];
    const events: SseEvent[] = [];
    // A CR at the end may be half of a CRLF, so it stays in the buffer.
    const lines = (this.#buffer + text).split(/\r\n|\n|\r(?!$)/);
    this.#buffer = lines.pop() ?? "";
    for (const line of lines) {
      if (line) this.#field(line);
      else this.#dispatch(events);
    }
    return events;
  }

  #dispatch(events: SseEvent[]): void {
    if (this.#data.length) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
    this.#event = "";
    this.#data = [];
  }

  #field(line: string): void {
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    // `retry:` is ignored because the client has its own back-off, and `id:` because it keeps the
    // cursor itself. A line without a name is a comment.
  }
}

// An event-stream parser that owns no socket: text in, in pieces of any size, events out.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

export interface SseEvent {
  /** The last `id:` so far; it stays for the events that follow. */
  readonly id: string;
  /** `message` where the stream names none. */
  readonly event: string;
  readonly data: string;
}

export class SseParser {
  #buffer = "";
  #atStart = true;
  #id = "";
  #event = "";
  #data: string[] = [];

  push(text: string): SseEvent[] {
    if (!text) return [];
    const events: SseEvent[] = [];
    let buffer = this.#buffer + text;
    if (this.#atStart && buffer.startsWith("\uFEFF")) buffer = buffer.slice(1);
    this.#atStart = false;
    // A CR at the very end may be half of a CRLF, so it waits for what follows.
    const lines = buffer.split(/\r\n|\n|\r(?!$)/);
    this.#buffer = lines.pop() ?? "";
    for (const line of lines) {
      if (line) this.#field(line);
      else this.#dispatch(events);
    }
    return events;
  }

  #dispatch(events: SseEvent[]): void {
    if (this.#data.length) events.push({ id: this.#id, event: this.#event || "message", data: this.#data.join("\n") });
    this.#event = "";
    this.#data = [];
  }

  #field(line: string): void {
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    // `retry:` is for the browser's own EventSource: our back-off has its own bounds. No name: a comment.
  }
}

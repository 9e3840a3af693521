// What the browser knows and the bus wants to know.

export interface PageLifecycleListener {
  online(): void;
  offline(): void;
  /** Back in the foreground. */
  shown(): void;
  /** Perhaps for the last time: a page that goes away gets no later notice. */
  hidden(): void;
}

/** Listens until the answer is called. In a worker there is no document, and outside a browser nothing at all. */
export function watchPageLifecycle(listener: PageLifecycleListener): () => void {
  if (typeof addEventListener !== "function") return () => undefined;
  const end = new AbortController();
  const { signal } = end;
  addEventListener("online", () => listener.online(), { signal });
  addEventListener("offline", () => listener.offline(), { signal });
  addEventListener("pagehide", () => listener.hidden(), { signal });
  if (typeof document !== "undefined") {
    document.addEventListener("visibilitychange", () => (document.hidden ? listener.hidden() : listener.shown()), { signal });
  }
  return () => end.abort();
}

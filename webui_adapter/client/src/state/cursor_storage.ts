/** The cursor in `sessionStorage`, so that a reload resumes. Storage that is full or forbidden is done without. */
export interface CursorStorage {
  load(): string;
  save(cursor: string): void;
}

export function cursorStorage(key: string | undefined): CursorStorage {
  if (key === undefined) return { load: () => "", save: () => undefined };
  return {
    load() {
      try {
        return sessionStorage.getItem(key) ?? "";
      } catch {
        return "";
      }
    },
    save(cursor) {
      try {
        sessionStorage.setItem(key, cursor);
      } catch {
        // The next page starts with the snapshot instead.
      }
    },
  };
}

/**
 * Keeps the cursor in `sessionStorage`, so that a reloaded page resumes.
 *
 * When the storage is full or forbidden, the next page starts without a stored cursor.
 */
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
        // Without a stored cursor the next page starts with a snapshot.
      }
    },
  };
}

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
  return {
    load() {
      try {
        return (key !== undefined && sessionStorage.getItem(key)) || "";
      } catch {
        return "";
      }
    },
    save(cursor) {
      try {
        if (key !== undefined) sessionStorage.setItem(key, cursor);
      } catch {
        // Without a stored cursor the next page starts with a snapshot.
      }
    },
  };
}

import { readFileSync } from "node:fs";

/** The golden frames, which the Python tests read as well. From build/test/ at the time of running. */
export function golden<Case>(file: string): Case[] {
  const url = new URL(`../../../../tests/wire/${file}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Case[];
}

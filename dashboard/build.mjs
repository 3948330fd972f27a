// Makes the page out of its sources: `node build.mjs FOLDER`. The result stands in `dist`, is
// committed, and is what `weft` carries; a test makes it anew and compares every byte.
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2];
if (!folder) throw new Error("usage: node build.mjs FOLDER");

await mkdir(folder, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: ["src/main.ts"],
  bundle: true,
  minify: true,
  charset: "ascii",
  format: "iife",
  target: "es2022",
  legalComments: "none",
  outfile: `${folder}/dashboard.js`,
});
await build({
  absWorkingDir: here,
  entryPoints: ["src/dashboard.css"],
  minify: true,
  target: "chrome110",
  outfile: `${folder}/dashboard.css`,
});
await copyFile(`${here}/src/index.html`, `${folder}/index.html`);

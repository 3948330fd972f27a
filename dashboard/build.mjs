// Makes the page out of its sources: `node build.mjs FOLDER`. The result stands in `dist`, is
// committed, and is what `weft` carries; a test makes it anew and compares every byte.
import { build } from "esbuild";
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2];
if (!folder) throw new Error("usage: node build.mjs FOLDER");

// The licences of what is part of the page ask to stand in each copy of it.
const parts = ["@dagrejs/dagre", "@dagrejs/graphlib", "uplot"];
const texts = await Promise.all(parts.map(async (name) => `${name}: ${(await readFile(`${here}/node_modules/${name}/LICENSE`, "utf8")).trim()}`));
const licences = `/*\n${texts.join("\n\n")}\n*/`;

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
  banner: { js: licences },
  outfile: `${folder}/dashboard.js`,
});
await build({
  absWorkingDir: here,
  entryPoints: ["src/dashboard.css"],
  bundle: true,
  minify: true,
  target: "chrome110",
  outfile: `${folder}/dashboard.css`,
});
await copyFile(`${here}/src/index.html`, `${folder}/index.html`);

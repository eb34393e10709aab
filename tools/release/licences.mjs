#!/usr/bin/env node
// Checks that every run-time dependency of our packages has a licence of this list, according to package-lock.json.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
/** Permissive licences. The exception is libvips (LGPL), which sharp uses as a shared library, as the LGPL permits. */
const ALLOWED = ['MIT', 'ISC', '0BSD', 'BSD-2-Clause', 'BSD-3-Clause', 'Apache-2.0', 'BlueOak-1.0.0'];
const LIBVIPS = /^node_modules\/@img\/sharp-(libvips|win32|wasm32)/;
const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'));

/** The path of a package that Node finds from `from`: in the nearest node_modules above. */
function find(name, from) {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/')))) {
    const path = join(at, 'node_modules', name);
    if (packages[path]) return packages[path].link ? packages[path].resolved : path;
    if (at === '') return undefined; // an optional package that is not in the lock file
  }
}

function runtimePackages() {
  const found = new Set();
  const queue = readdirSync(join(ROOT, 'packages')).map((folder) => `packages/${folder}`);
  for (let at; (at = queue.pop());) {
    if (found.has(at)) continue;
    found.add(at);
    const { dependencies, optionalDependencies } = packages[at];
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const path = find(name, at);
      if (path) queue.push(path);
      else if (dependencies?.[name]) throw new Error(`${at}: ${name} is not in package-lock.json`);
    }
  }
  return [...found].filter((path) => !path.startsWith('packages/'));
}

const counts = {};
const refused = [];
for (const path of runtimePackages()) {
  const { license = 'none' } = packages[path];
  counts[license] = (counts[license] ?? 0) + 1;
  if (!ALLOWED.includes(license) && !LIBVIPS.test(path)) refused.push(`${path}: ${license}`);
}
const list = Object.entries(counts).sort(([, a], [, b]) => b - a);
console.log(`licences at run time: ${list.map(([name, count]) => `${name} ${count}`).join(', ')}`);
if (refused.length > 0) {
  console.error(`licences: not in the list of tools/release/licences.mjs:\n  ${refused.join('\n  ')}`);
  process.exitCode = 1;
}

#!/usr/bin/env node
// Writes the folders to publish: build/npm/<package> for every package, with the licence, and with a package.json
// without the fields that only this repository uses. Needs built packages. `nx release publish` uploads these folders;
// tools/consumer installs them.
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const OUTPUT = join(ROOT, 'build/npm');
const ADDON = 'backend-native';

const read = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));

/** Removes the fields that only this repository uses: tasks, development dependencies and paths to sources. */
function published(manifest) {
  const { scripts, exports } = manifest;
  for (const field of ['scripts', 'devDependencies', 'nx']) delete manifest[field];
  for (const entry of Object.values(exports)) if (typeof entry === 'object') delete entry['@blip2/source'];
  if (scripts.install) manifest.scripts = { install: scripts.install };
  return { ...manifest, publishConfig: { access: 'public' } };
}

/** The compiled addons in build/npm as optional dependencies; npm installs the one with matching os, cpu and libc. */
function prebuilt(version) {
  const found = readdirSync(OUTPUT)
    .filter((folder) => folder.startsWith(`${ADDON}-`))
    .map((folder) => read(join(OUTPUT, folder)));
  const old = found.find((addon) => addon.version !== version);
  if (old)
    throw new Error(`${old.name}: expected version ${version}, found ${old.version}; run prebuild.mjs`);
  return Object.fromEntries(found.map(({ name }) => [name, version]));
}

function stage(folder) {
  const from = join(ROOT, 'packages', folder);
  const to = join(OUTPUT, folder);
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  const manifest = published(read(from));
  if (folder === ADDON) manifest.optionalDependencies = prebuilt(manifest.version);
  for (const entry of manifest.files) {
    if (!existsSync(join(from, entry)))
      throw new Error(`packages/${folder}: expected ${entry}, found none; run: npx nx run-many -t build`);
    cpSync(join(from, entry), join(to, entry), { recursive: true });
  }
  for (const page of ['README.md', 'CHANGELOG.md'])
    if (existsSync(join(from, page))) copyFileSync(join(from, page), join(to, page));
  copyFileSync(join(ROOT, 'LICENSE'), join(to, 'LICENSE'));
  writeFileSync(join(to, 'package.json'), JSON.stringify(manifest, null, 2) + '\n');
  return manifest;
}

try {
  mkdirSync(OUTPUT, { recursive: true });
  for (const folder of readdirSync(join(ROOT, 'packages'))) {
    const { name, version, optionalDependencies } = stage(folder);
    const addons = optionalDependencies && `, prebuilt for: ${list(optionalDependencies)}`;
    console.log(`${name}@${version}${addons ?? ''}`);
  }
} catch (error) {
  console.error(`stage: ${error.message}`);
  process.exitCode = 1;
}

function list(addons) {
  const names = Object.keys(addons).map((name) => basename(name).slice(ADDON.length + 1));
  return names.join(', ') || 'no platform';
}

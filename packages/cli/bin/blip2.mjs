#!/usr/bin/env node
// The `blip2` command. It is committed, so that npm links it before anything is built: `npx blip2` never fetches a package of
// this name from the registry. In a checkout, it first builds the packages if a source is newer than the last build.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const folder = resolve(dirname(realpathSync(fileURLToPath(import.meta.url))), '..');
const built = join(folder, 'dist', 'bin.js');
const packages = resolve(folder, '..');

/** Whether this is a checkout whose last build is older than one of its sources. */
function isStale() {
  if (!existsSync(join(folder, 'src'))) return false;
  const time = statSync(built, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const sources = readdirSync(packages).map((name) => join(packages, name, 'src'));
  return sources.filter((source) => existsSync(source)).some((source) => hasNewer(source, time));
}

function hasNewer(source, time) {
  const files = readdirSync(source, { recursive: true }).filter((name) => /(?<!\.spec)\.ts$/.test(name));
  return files.some((name) => statSync(join(source, name)).mtimeMs > time);
}

/** Exits with nx's output if the build fails. */
function build() {
  process.stderr.write('building blip2, once after each change of its sources …\n');
  const root = resolve(packages, '..');
  const nx = createRequire(join(root, 'package.json')).resolve('nx/bin/nx.js');
  const env = { ...process.env, NX_DAEMON: 'false', FORCE_COLOR: '0' };
  const args = [nx, 'build', 'cli', '--outputStyle=static'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' });
  if (status === 0) return;
  process.stderr.write(`${stdout}${stderr}the packages cannot be built; see above\n`);
  process.exit(1);
}

if (isStale()) build();
await import(pathToFileURL(built).href);

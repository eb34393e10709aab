#!/usr/bin/env node
// Makes `import('@tensorflow/tfjs-node')` work with a current TensorFlow if the library that npm would download is
// unreachable or too old: it uses the C library of the Python wheel and compiles the binding from the npm package's
// sources against it.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const VERSION = '4.22.0'; // of tfjs-node: it must equal tfjs-core's, whose engine it shares
const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const HELP = `Builds a TensorFlow backend for this checkout. Needs npm, Python 3 with pip, and g++ or clang++.

  npx nx run libtensorflow:setup

Options
  --wheel SPEC    a wheel file, or a package for pip download  default tensorflow-cpu==2.21.0
  --gpu           for @tensorflow/tfjs-node-gpu; needs a CUDA wheel, e.g. --wheel tensorflow==2.21.0
  --python EXE    default python3
  --output DIR    default .libtensorflow (about 1.5 GB; delete it to undo)`;

const { values: options } = parseArgs({
  options: {
    wheel: { type: 'string', default: 'tensorflow-cpu==2.21.0' },
    gpu: { type: 'boolean', default: false },
    python: { type: 'string', default: 'python3' },
    output: { type: 'string', default: join(ROOT, '.libtensorflow') },
    help: { type: 'boolean', default: false },
  },
});
const output = resolve(options.output);
const name = options.gpu ? '@tensorflow/tfjs-node-gpu' : '@tensorflow/tfjs-node';
const folder = join(output, 'node_modules', name);
const wheelFolder = join(output, 'wheel');

/** Runs a program with its output on stderr. @throws Error that names the failed step */
function run(step, program, args, cwd = output) {
  try {
    execFileSync(program, args, { cwd, stdio: ['ignore', 2, 2] });
  } catch (error) {
    const why = error.code === 'ENOENT' ? `${program} is not installed` : error.message.split('\n')[0];
    throw new Error(`${step}: ${why}`);
  }
}

/** Installs the npm package and its dependencies without its install script, which would download a library. */
function installPackage() {
  if (existsSync(join(folder, 'package.json'))) return;
  writeFileSync(
    join(output, 'package.json'),
    JSON.stringify({ private: true, dependencies: { [name]: VERSION } }),
  );
  run(`npm install ${name}`, 'npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund']);
}

/** Unpacks the wheel's headers and two libraries. Any Python version can download the wheel. */
function unpackWheel() {
  if (existsSync(join(wheelFolder, 'tensorflow', 'include'))) return;
  let wheel = resolve(options.wheel);
  if (!existsSync(wheel)) {
    const arch = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
    const platform = `manylinux_2_27_${arch}`;
    const target = ['--only-binary', ':all:', '--python-version', '3.11', '--platform', platform];
    run(`pip download ${options.wheel}`, options.python, [
      ...['-m', 'pip', 'download', '-q', '--no-deps', '--dest', output],
      ...target,
      options.wheel,
    ]);
    const found = readdirSync(output).filter((file) => file.endsWith('.whl'));
    if (found.length !== 1)
      throw new Error(`${output}: expected one wheel, found ${found.join(', ') || 'none'}`);
    wheel = join(output, found[0]);
  }
  const unpack = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    members = [n for n in wheel.namelist() if n.startswith('tensorflow/include/') or '/libtensorflow_' in n]
    wheel.extractall(sys.argv[2], members)`;
  run(`unpack ${wheel}`, options.python, ['-c', unpack, wheel, wheelFolder]);
  if (dirname(wheel) === output) rmSync(wheel);
}

/** Compiles the binding with a run path to the wheel's libraries, so nothing is installed system-wide. */
function compileBinding() {
  const binding = join(folder, 'lib', 'napi-v8', 'tfjs_binding.node');
  if (existsSync(binding)) return;
  const libraries = join(wheelFolder, 'tensorflow');
  const links = join(output, 'lib');
  for (const path of [links, dirname(binding)]) mkdirSync(path, { recursive: true });
  for (const [plain, real] of [
    ['libtensorflow.so', 'libtensorflow_cc.so.2'],
    ['libtensorflow_framework.so', 'libtensorflow_framework.so.2'],
  ]) {
    rmSync(join(links, plain), { force: true });
    symlinkSync(join(libraries, real), join(links, plain));
  }
  const { include_dir: headers } = createRequire(import.meta.url)('node-api-headers');
  const compiler = process.env.CXX ?? 'g++';
  run(
    `compile ${name}`,
    compiler,
    [
      ...['-O2', '-std=c++17', '-shared', '-fPIC', '-w', '-DNAPI_VERSION=8'],
      ...[headers, join(libraries, 'include'), '.', '..'].map((path) => `-I${path}`),
      ...['binding/tfjs_backend.cc', 'binding/tfjs_binding.cc', '-o', binding, `-L${links}`],
      ...['-ltensorflow', '-ltensorflow_framework', `-Wl,-rpath,${libraries}`],
    ],
    folder,
  );
}

/**
 * Links the package into node_modules of this checkout. Node resolves the link, so the package finds its own
 * dependencies.
 */
function link() {
  const at = join(ROOT, 'node_modules', name);
  rmSync(at, { force: true, recursive: true });
  mkdirSync(dirname(at), { recursive: true });
  symlinkSync(folder, at);
}

function main() {
  if (options.help) return console.log(HELP);
  if (process.platform !== 'linux') throw new Error(`expected Linux, found ${process.platform}`);
  mkdirSync(output, { recursive: true });
  installPackage();
  unpackWheel();
  compileBinding();
  link();
  // in a separate process, as in a user's program
  run('start', process.execPath, [join(ROOT, 'tools/libtensorflow/check.mjs'), name], ROOT);
}

try {
  main();
} catch (error) {
  console.error(`libtensorflow: ${error.message}`);
  process.exitCode = 1;
}

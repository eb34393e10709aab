// Compiles native/*.cc into build/blip2_native.node. Runs at install, unless npm installed a compiled addon. It never fails the
// install: if there is no compiler or compiling fails, it prints the reason, and the backend is unavailable.
// `--force` compiles again;
// `--strict` exits with an error if compiling fails, so that no suite runs with an older addon;
// `--sanitize` compiles build/sanitized/ for sanitize.mjs, and exits with an error if it cannot;
// `--faults` likewise compiles build/faulty/, in which a chosen allocation fails (spec/faults.cc). It needs Linux.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { platformPackage } from './platform.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const source = join(here, 'native');
const sanitized = process.argv.includes('--sanitize');
const faulty = process.argv.includes('--faults');
const build = join(here, 'build', sanitized ? 'sanitized' : faulty ? 'faulty' : '');
const target = join(build, 'blip2_native.node');
const stampFile = join(build, 'stamp');

/** Compiled once for the whole addon; every other file is compiled once per instruction-set level. */
const common = [
  'binding.cc',
  'binding_attention.cc',
  'binding_decoder.cc',
  'binding_encoder.cc',
  'binding_loss.cc',
  'binding_matmul.cc',
  'binding_stored.cc',
  'dispatch.cc',
  'file_watch.cc',
  'layers.cc',
  'linear_loss.cc',
  'stored.cc',
  'thread_pool.cc',
];
/** Compiled only for these levels; their other kernels are those of the level below (see dispatch.cc). */
const only = {
  'attention_bf16.cc': ['avx512bf16'],
  'gemm_bf16.cc': ['avx512bf16'],
  'gemm_amx.cc': ['amx', 'amx_emulated'],
  'gemm_amx_int8.cc': ['amx', 'amx_emulated'],
  'gemm_vnni.cc': ['avxvnni', 'avx512vnni', 'dotprod'],
};
const onlyLevels = Object.values(only).flat();

const flags = (
  '-std=c++17 -fPIC -fvisibility=hidden -pthread -DNAPI_VERSION=8 -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi ' +
  '-ffp-contract=fast -fno-math-errno -fno-trapping-math'
).split(' ');
const checks = sanitized ? ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'] : [];
if (sanitized) flags.push('-O1', '-g', '-fno-omit-frame-pointer', ...checks);
else if (faulty) flags.push('-O1', '-DBLIP2_FAULTS');
else flags.push('-O3');
/** All calls that allocate, or start a thread, of the addon and of its own copy of the C++ library go to spec/faults.cc. */
const wrapped = ['malloc', 'calloc', 'realloc', 'aligned_alloc', 'mmap', 'pthread_create'];
const wrapping = ['-static-libstdc++', '-static-libgcc', '-Wl,-Bsymbolic', '-Wl,--exclude-libs,ALL'].concat(
  wrapped.map((name) => `-Wl,--wrap=${name}`),
);
const avx2 = ['-mavx2', '-mfma', '-mf16c'];
const avx512 = [...avx2, '-mavx512f', '-mavx512dq', '-mavx512bw', '-mavx512vl', '-mprefer-vector-width=512'];
const avx512bf16 = [...avx512, '-mavx512bf16'];
const levels = {
  portable: [],
  ...(process.arch === 'x64' && {
    avx2,
    avx512,
    avx512bf16,
    avxvnni: [...avx2, '-mavxvnni'],
    avx512vnni: [...avx512, '-mavx512vnni'],
    amx: [...avx512bf16, '-mamx-tile', '-mamx-bf16', '-mamx-int8'],
    amx_emulated: [...avx512bf16, '-DBLIP2_EMULATED_TILES'],
  }),
  ...(process.arch === 'arm64' && { dotprod: ['-march=armv8.2-a+dotprod'] }),
};

function stop(why, fails = sanitized || faulty) {
  console.log(`@blip2/backend-native: not built (${why})${fails ? '' : '; the other backends still work'}.`);
  process.exit(fails ? 1 : 0);
}

/** Whether the package for this platform is installed and its addon loads (it may need a newer libc). */
function prebuiltLoads() {
  try {
    createRequire(import.meta.url)(platformPackage());
    return true;
  } catch {
    return false;
  }
}

function findCompiler() {
  for (const name of [process.env.CXX, 'g++', 'clang++', 'c++']) {
    if (!name) continue;
    const [program, ...extra] = existsSync(name) ? [name] : name.split(' ').filter(Boolean);
    const answer = spawnSync(program, [...extra, '--version'], { encoding: 'utf8' });
    if (answer.status === 0) return { program, extra, version: answer.stdout.split('\n')[0] };
  }
  return stop('no C++ compiler found: install g++ or clang++, or set CXX');
}

/** Whether the compiler supports these options: g++ before 10 and clang before 9 lack AVX512-BF16, g++ 10 lacks AMX and AVX-VNNI. */
function supports({ program, extra }, options) {
  const answer = spawnSync(program, [...extra, ...options, '-fsyntax-only', '-x', 'c++', '-'], { input: '' });
  return answer.status === 0;
}

function run(program, args) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (text) => (errors += text));
    child.on('error', (error) => resolve(error.message));
    child.on('close', (status) => {
      if (process.env.BLIP2_BUILD_VERBOSE && errors) console.error(errors);
      resolve(status === 0 ? undefined : errors || `exit ${status}`);
    });
  });
}

/** A digest of the compiler, its options and all sources. */
function digestOf(compiler, files) {
  const stamp = createHash('sha256').update(
    JSON.stringify([compiler, flags, levels, process.arch, common, only]),
  );
  for (const file of files) stamp.update(file).update(readFileSync(join(source, file)));
  if (faulty) stamp.update(readFileSync(join(here, 'spec', 'faults.cc')));
  return stamp.digest('hex');
}

function isCurrent(digest) {
  return existsSync(target) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === digest;
}

/** The files to compile, with their options: `[{ file, object, options }]`. */
function plan(compiler, files, work) {
  const has = (level) => levels[level] !== undefined && supports(compiler, levels[level]);
  const bf16 = has('avx512bf16');
  const amx = bf16 && has('avx512vnni') && has('amx');
  const built = {
    avx512bf16: bf16,
    amx,
    amx_emulated: amx,
    avxvnni: has('avxvnni'),
    avx512vnni: has('avx512vnni'),
    dotprod: has('dotprod'),
  };
  const defines = [
    ...(process.arch === 'x64' ? ['-DBLIP2_X86_LEVELS'] : []),
    ...(bf16 ? ['-DBLIP2_AVX512BF16'] : []),
    ...(amx ? ['-DBLIP2_AMX'] : []),
    ...(built.dotprod ? ['-DBLIP2_DOTPROD'] : []),
    ...(built.avxvnni ? ['-DBLIP2_AVXVNNI'] : []),
    ...(built.avx512vnni ? ['-DBLIP2_AVX512VNNI'] : []),
  ];
  const belongs = (file, level) => {
    if (!onlyLevels.includes(level)) return !only[file] && !common.includes(file);
    return only[file]?.includes(level) && built[level];
  };
  const sources = files.filter((name) => name.endsWith('.cc'));
  const perLevel = Object.entries(levels).flatMap(([level, options]) =>
    sources
      .filter((file) => belongs(file, level))
      .map((file) => ({
        file,
        object: join(work, `${level}-${file}.o`),
        options: [...defines, ...options, `-DISA=${level}`, `-DLEVEL_NAME="${level}"`],
      })),
  );
  const once = common.map((file) => ({ file, object: join(work, `${file}.o`), options: defines }));
  if (faulty) once.push({ file: '../spec/faults.cc', object: join(work, 'faults.o'), options: defines });
  const isLong = ({ file }) => file === 'gemm.cc'; // takes longest, so it starts first
  const all = [...perLevel, ...once];
  return [...all.filter(isLong), ...all.filter((job) => !isLong(job))];
}

/** Compiles on all cores. Returns the first error message, if any. */
async function compile({ program, extra }, plan) {
  const headers = createRequire(import.meta.url)('node-api-headers').include_dir;
  const jobs = [...plan];
  let failure;
  const worker = async () => {
    for (let job; !failure && (job = jobs.shift());) {
      const files = ['-c', join(source, job.file), '-o', job.object];
      const error = await run(program, [...extra, ...flags, `-I${headers}`, ...job.options, ...files]);
      failure ??= error; // not in one statement: `failure` must be read after the await, or a success could replace it
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return failure;
}

function link({ program, extra }, objects, addon) {
  const options = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : faulty ? wrapping : [];
  // Other machines may have an older C++ library.
  if (process.argv.includes('--self-contained')) options.push('-static-libstdc++', '-static-libgcc');
  return run(program, [...extra, '-shared', '-pthread', ...checks, ...options, ...objects, '-o', addon]);
}

/** Loads the addon in another process: the linker accepts undefined symbols, because Node provides some of them. */
function load(addon) {
  return sanitized ? undefined : run(process.execPath, ['-e', 'require(process.argv[1])', addon]);
}

async function main() {
  const forced = process.argv.includes('--force');
  if (!forced && !sanitized && !faulty && !existsSync(target) && prebuiltLoads()) return;
  if (process.platform === 'win32') stop('Windows is not supported yet');
  const compiler = findCompiler();
  const files = readdirSync(source).sort();
  const digest = digestOf(compiler, files);
  if (isCurrent(digest) && !forced) return;

  const started = Date.now();
  mkdirSync(build, { recursive: true });
  const work = mkdtempSync(join(build, 'objects-'));
  try {
    const jobs = plan(compiler, files, work);
    const addon = join(work, 'blip2_native.node');
    const objects = jobs.map(({ object }) => object);
    const failure =
      (await compile(compiler, jobs)) ?? (await link(compiler, objects, addon)) ?? (await load(addon));
    if (failure)
      throw new Error(failure.split('\n').find((line) => /error/i.test(line)) ?? failure.split('\n')[0]);
    renameSync(addon, target); // a running process keeps the old file
    writeFileSync(stampFile, digest);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(`@blip2/backend-native: built in ${seconds} s with ${compiler.version}`);
}

try {
  await main();
} catch (error) {
  stop(error.message, sanitized || faulty || process.argv.includes('--strict'));
}

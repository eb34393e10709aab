// Compiles native/mpi.cc with the MPI of this machine into build/blip2_mpi.node. It runs only when asked for:
//   npx nx run distributed:compile, or node node_modules/@blip2/distributed/build.mjs
// MPICXX names another MPI's compiler, `--output FILE` another place. An addon works with the MPI that it was compiled with.
import { spawnSync } from 'node:child_process';
import { mkdirSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { output } = parseArgs({ options: { output: { type: 'string' } } }).values;
const addon = output ? resolve(output) : here('build/blip2_mpi.node');

function stop(why) {
  console.error(`@blip2/distributed: not compiled: ${why}`);
  process.exit(1);
}

const wanted = process.env.MPICXX ? [process.env.MPICXX] : ['mpicxx', 'mpic++', 'mpiicpx', 'CC'];
const compiler = wanted.find((name) => spawnSync(name, ['--version']).status === 0);
if (!compiler)
  stop(
    `expected the compiler of an MPI (${wanted.join(', ')}), found none. Install one: on Debian and Ubuntu ` +
      'apt-get install libopenmpi-dev openmpi-bin; on a cluster load its MPI module',
  );

mkdirSync(dirname(addon), { recursive: true });
const made = `${addon}.${process.pid}`;
const headers = createRequire(import.meta.url)('node-api-headers').include_dir;
const options = ['-std=c++17', '-O2', '-fPIC', '-shared', '-pthread', '-DNAPI_VERSION=8', '-Wall', '-Wextra'];
const undefinedSymbols = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : [];
const { status, stderr } = spawnSync(
  compiler,
  [...options, `-I${headers}`, here('native/mpi.cc'), '-o', made, ...undefinedSymbols],
  { encoding: 'utf8' },
);
if (status !== 0) stop(`${compiler}: ${stderr.split('\n').find((line) => /error/i.test(line)) ?? stderr}`);
renameSync(made, addon); // a running process keeps the old file
console.log(`@blip2/distributed: compiled with ${compiler}`);

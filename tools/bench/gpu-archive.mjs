#!/usr/bin/env node
// Everything that `npm run bench -- gpu` needs on a Linux machine with a GPU and no network, in one archive: Node, the packages, Dawn, the
// Vulkan loader. `sh blip2-gpu/run.sh` runs it there.
//   node tools/bench/gpu-archive.mjs blip2-gpu.tar.gz
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'tsup';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const MOST = 60 * 2 ** 20;
const LOADERS = ['/usr/lib/x86_64-linux-gnu/libvulkan.so.1', '/usr/lib64/libvulkan.so.1'];

const RUN = `#!/bin/sh
# Conformance of the shaders, the adapter's matmul rate, then steps and captions; beside PyTorch if python3 (or --python FILE) has torch,
# transformers and peft. Options are those of "gpu" in: node tools/bench/dist/bin.js help
here=$(cd "$(dirname "$0")" && pwd)
# The loader of this machine, if it has one: the driver was installed with it.
for file in /usr/lib/x86_64-linux-gnu/libvulkan.so.1 /usr/lib64/libvulkan.so.1 /usr/lib/libvulkan.so.1; do
  [ -e "$file" ] && found=1
done
[ "$found" ] || export LD_LIBRARY_PATH="$here/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/node" "$here/tools/bench/dist/bin.js" gpu "$@"
`;

/** Decodes pictures, which this comparison does not have. */
const NO_SHARP = `export default () => {
  throw new Error('pictures cannot be decoded here: sharp is not in this archive');
};`;

/** One module for each package that is imported by name while the program runs; they share their parts with the program. */
async function compile(to) {
  const scratch = join(to, 'no-sharp.js');
  writeFileSync(scratch, NO_SHARP);
  await build({
    config: false,
    silent: true,
    entry: {
      'tools/bench/dist/bin': join(ROOT, 'tools/bench/src/bin.ts'),
      'node_modules/@blip2/backend-webgpu/node': join(ROOT, 'packages/backend-webgpu/src/node.ts'),
    },
    outDir: to,
    format: ['esm'],
    target: 'node20',
    noExternal: [/.*/],
    external: ['webgpu'],
    splitting: true,
    minify: true,
    treeshake: false,
    banner: {
      js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
    },
    esbuildOptions(options) {
      options.conditions = ['@blip2/source'];
      options.alias = { sharp: scratch };
      options.chunkNames = 'tools/bench/dist/[name]-[hash]';
    },
  });
  rmSync(scratch);
  const manifest = { name: '@blip2/backend-webgpu', type: 'module', exports: { './node': './node.js' } };
  writeFileSync(join(to, 'node_modules/@blip2/backend-webgpu/package.json'), JSON.stringify(manifest));
  writeFileSync(join(to, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
}

/** Files of packages that are not compiled, and programs of this machine. */
function copy(to) {
  for (const path of [
    'node_modules/webgpu/package.json',
    'node_modules/webgpu/index.js',
    'node_modules/webgpu/dist/linux-x64/dawn.node',
    'tools/bench/python',
    'packages/blip2/fixtures/tiny',
  ])
    cpSync(join(ROOT, path), join(to, path), { recursive: true, dereference: true });
  const loader = LOADERS.find((file) => existsSync(file));
  if (!loader) throw new Error(`expected ${LOADERS.join(' or ')}, found neither; install libvulkan1`);
  mkdirSync(join(to, 'lib'));
  cpSync(realpathSync(loader), join(to, 'lib/libvulkan.so.1'));
  cpSync(process.execPath, join(to, 'node'), { dereference: true });
  writeFileSync(join(to, 'run.sh'), RUN);
  for (const name of ['run.sh', 'node']) chmodSync(join(to, name), 0o755);
}

if (process.platform !== 'linux' || process.arch !== 'x64')
  throw new Error(`expected Linux on x64, found ${process.platform} on ${process.arch}`);
const file = resolve(process.argv[2] ?? 'blip2-gpu.tar.gz');
const scratch = mkdtempSync(join(tmpdir(), 'blip2-gpu-'));
try {
  const to = join(scratch, 'blip2-gpu');
  mkdirSync(to);
  await compile(to);
  copy(to);
  const env = { ...process.env, GZIP: '-9' };
  execFileSync('tar', ['-czf', file, '-C', scratch, 'blip2-gpu'], {
    env,
    stdio: ['ignore', 'inherit', 'ignore'],
  });
  const { size } = statSync(file);
  console.log(`${file}: ${(size / 2 ** 20).toFixed(1)} MiB`);
  if (size > MOST)
    throw new Error(`expected at most ${MOST / 2 ** 20} MiB, found ${(size / 2 ** 20).toFixed(1)}`);
} finally {
  rmSync(scratch, { recursive: true });
}

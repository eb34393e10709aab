// The compiled addon as a package for this platform, which `loadAddon` takes where nothing was compiled: no compiler and no install
// script needed. It lands in build/npm of the repository, where tools/release/stage.mjs finds it (docs/releasing.md).
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { glibc, isMusl, platformPackage } from './platform.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const { values } = parseArgs({
  options: { output: { type: 'string' } },
});
const name = platformPackage();
const output = resolve(values.output ?? join(here, '../../build/npm', name.split('/')[1]));
const addon = join(here, 'build', 'blip2_native.node');

rmSync(addon, { force: true });
execFileSync(process.execPath, [join(here, 'build.mjs'), '--force', '--self-contained'], {
  stdio: 'inherit',
});

const { version, license } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'));
const { platform, arch } = process;
mkdirSync(output, { recursive: true });
copyFileSync(addon, join(output, 'blip2_native.node'));
writeFileSync(
  join(output, 'package.json'),
  JSON.stringify(
    {
      ...{
        name,
        version,
        license,
        description: `The compiled addon of @blip2/backend-native for ${platform}-${arch}.`,
      },
      ...{
        os: [platform],
        cpu: [arch],
        ...(platform === 'linux' && { libc: [isMusl() ? 'musl' : 'glibc'] }),
      },
      ...{ main: 'blip2_native.node', files: ['blip2_native.node'] },
      publishConfig: { access: 'public' },
    },
    null,
    2,
  ),
);
copyFileSync(join(here, '../../LICENSE'), join(output, 'LICENSE'));
const needs = glibc() ? `; runs where glibc is ${glibc()} or newer` : '';
console.log(`${name}@${version} in ${output}${needs}`);

// Makes the package with the compiled addon for this platform. `loadAddon` uses it if no addon was compiled at install, so users need
// no compiler. It is written to build/npm of the repository, for tools/release/stage.mjs (docs/releasing.md).
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { glibc, isMusl, platformPackage } from './platform.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const { values } = parseArgs({ options: { output: { type: 'string' } } });
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
      name,
      version,
      license,
      description: `The compiled addon of @blip2/backend-native for ${platform}-${arch}.`,
      os: [platform],
      cpu: [arch],
      ...(platform === 'linux' && { libc: [isMusl() ? 'musl' : 'glibc'] }),
      main: 'blip2_native.node',
      files: ['blip2_native.node'],
      publishConfig: { access: 'public' },
    },
    null,
    2,
  ),
);
copyFileSync(join(here, '../../LICENSE'), join(output, 'LICENSE'));
const needs = glibc() ? `; needs glibc ${glibc()} or newer` : '';
console.log(`${name}@${version} in ${output}${needs}`);

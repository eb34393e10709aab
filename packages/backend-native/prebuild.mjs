// The compiled addon as a package for this platform, which `loadAddon` takes where nothing was compiled: no compiler and no install
// script needed. `node prebuild.mjs --output DIR`, then `npm publish DIR` (docs/releasing.md).
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = fileURLToPath(new URL('.', import.meta.url));
const { values } = parseArgs({
  options: { output: { type: 'string', default: join(here, 'build', 'package') } },
});
const output = resolve(values.output);
const addon = join(here, 'build', 'blip2_native.node');

rmSync(addon, { force: true });
execFileSync(process.execPath, [join(here, 'build.mjs'), '--force', '--self-contained'], {
  stdio: 'inherit',
});

const { version, license } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'));
const { platform, arch } = process;
const glibc = process.report.getReport().header.glibcVersionRuntime;
const musl = platform === 'linux' && glibc === undefined;
const name = `@blip2/backend-native-${platform}-${arch}${musl ? '-musl' : ''}`;
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
      ...{ os: [platform], cpu: [arch], ...(platform === 'linux' && { libc: [musl ? 'musl' : 'glibc'] }) },
      ...{ main: 'blip2_native.node', files: ['blip2_native.node'] },
    },
    null,
    2,
  ),
);
console.log(`${name}@${version} in ${output}${glibc ? `, compiled with glibc ${glibc}` : ''}`);

import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, defineConfig } from 'tsup';

const present = (files: string[]) => files.filter((file) => existsSync(file));

/** The modules that other packages may import. */
const doors = present(['src/index.ts', 'src/node.ts', 'src/conformance.ts']);

/** One build for every package: ESM with types. `src/browser.ts` is what browsers get of `src/index.ts`, `src/bin.ts` becomes a command, `src/worker.ts` the program of a thread. */
export default defineConfig({
  entry: [...doors, ...present(['src/browser.ts', 'src/bin.ts', 'src/worker.ts'])],
  format: ['esm'],
  target: 'node20',
  dts: {
    entry: doors,
    // tsup 8 sets baseUrl, which TypeScript 6 takes with this only.
    compilerOptions: { customConditions: [], ignoreDeprecations: '6.0' },
  },
  clean: true,
  sourcemap: true,
  splitting: true,
});

/**
 * A program for specs that start processes: one file in the build folder of its package, which runs the sources as they are. It is put
 * there whole, because a process of another spec may be reading it. Returns its path.
 */
export async function bundle(entry: URL): Promise<string> {
  const folder = fileURLToPath(new URL('../build', entry));
  await mkdir(folder, { recursive: true });
  const outDir = await mkdtemp(join(folder, 'bundle-'));
  await build({
    config: false,
    silent: true,
    entry: [fileURLToPath(entry)],
    outDir,
    format: ['esm'],
    target: 'node20',
    noExternal: [/^@blip2\//],
    external: [/^[^./@]/, /^@(?!blip2\/)/],
    splitting: false,
    esbuildOptions: (options) => void (options.conditions = ['@blip2/source']),
  });
  const name = `${basename(entry.pathname, '.ts')}.js`;
  await rename(join(outDir, name), join(folder, name));
  await rm(outDir, { recursive: true });
  return join(folder, name);
}

import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, defineConfig } from 'tsup';

/** One build for every package: ESM with types. `src/bin.ts`, where there is one, becomes the command. */
export default defineConfig({
  entry: ['src/index.ts', ...(existsSync('src/bin.ts') ? ['src/bin.ts'] : [])],
  format: ['esm'],
  target: 'node20',
  dts: { entry: 'src/index.ts', compilerOptions: { customConditions: [] } },
  clean: true,
  sourcemap: true,
  splitting: true,
});

/**
 * A program for specs that start processes: one file in the build folder of its package, which runs the sources as they are.
 * Returns its path.
 */
export async function bundle(entry: URL): Promise<string> {
  const outDir = fileURLToPath(new URL('../build', entry));
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
  return `${outDir}/${basename(entry.pathname, '.ts')}.js`;
}

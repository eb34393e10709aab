import { existsSync } from 'node:fs';
import { defineConfig } from 'tsup';

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

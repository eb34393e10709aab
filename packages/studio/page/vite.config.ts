/** Builds the page into dist/page: static files that load nothing from elsewhere. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'vite';
import { defineConfig } from 'vite';

const here = dirname(fileURLToPath(import.meta.url));
const { resolve } = createRequire(import.meta.url);

/** The licences of what is bundled. */
const licences: Plugin = {
  name: 'licences',
  generateBundle() {
    const texts = ['preact', 'uplot'].map((name) => {
      const text = readFileSync(join(dirname(resolve(`${name}/package.json`)), 'LICENSE'), 'utf8');
      return `${name}\n\n${text}`;
    });
    this.emitFile({ type: 'asset', fileName: 'licences.txt', source: texts.join('\n\n') });
  },
};

export default defineConfig({
  root: here,
  logLevel: 'warn',
  plugins: [licences],
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  build: {
    outDir: join(here, '..', 'dist', 'page'),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
  },
});

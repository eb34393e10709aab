/** Builds the page into dist: static files that load nothing from elsewhere. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'vite';
import { defaultClientConditions, defineConfig } from 'vite';

const here = dirname(fileURLToPath(import.meta.url));

const BUNDLED = [
  'preact',
  '@huggingface/tokenizers',
  '@tensorflow/tfjs-core',
  '@tensorflow/tfjs-backend-wasm',
  '@tensorflow/tfjs-backend-webgpu',
  '@tensorflow/tfjs-backend-cpu',
  'long',
  'seedrandom',
];

/** The licences of what is bundled. */
const licences: Plugin = {
  name: 'licences',
  generateBundle() {
    const source = [
      `BLIP-2 for TypeScript\n\n${readFileSync(join(here, '../../LICENSE'), 'utf8')}`,
      ...BUNDLED.map(licenceOf),
    ];
    this.emitFile({ type: 'asset', fileName: 'licences.txt', source: source.join('\n\n') });
  },
};

/** Nothing from elsewhere, no script in the page itself. Only in the build: vite's own server puts styles into the page. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "connect-src 'self'",
  "worker-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

const policy: Plugin = {
  name: 'policy',
  apply: 'build',
  transformIndexHtml: () => [
    {
      tag: 'meta',
      attrs: { 'http-equiv': 'Content-Security-Policy', content: POLICY },
      injectTo: 'head-prepend',
    },
  ],
};

/** Name and licence of a package, with its text if it differs from ours, which is the Apache License. */
function licenceOf(name: string): string {
  const folder = join(here, '../../node_modules', name);
  const { license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { license: string };
  if (license === 'Apache-2.0') return `${name}: Apache-2.0, as above`;
  const own = ['LICENSE', 'README.md'].map((file) => join(folder, file)).find((file) => existsSync(file));
  const text = readFileSync(own!, 'utf8');
  return `${name}: ${license}\n\n${text.slice(Math.max(0, text.search(/^.*(?:LICENSE|License) \(MIT\)/m)))}`;
}

export default defineConfig({
  root: here,
  base: './', // may lie in any folder of a site
  logLevel: 'warn',
  plugins: [licences, policy],
  resolve: { conditions: ['@blip2/source', ...defaultClientConditions] },
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  worker: { format: 'es' },
  build: {
    outDir: join(here, 'dist'),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1000,
    modulePreload: { polyfill: false },
    target: 'es2022',
  },
});

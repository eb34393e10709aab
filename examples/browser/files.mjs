// Fills public/, or another folder that is named: the base model, the .wasm files of the backend, and drawings to try. Only the page needs them, so they are not committed.
import { Buffer } from 'node:buffer';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';

const { resolve } = createRequire(import.meta.url);
const here = dirname(fileURLToPath(import.meta.url));
const PUBLIC = process.argv[2] ?? join(here, 'public');
const MODEL = join(here, '../../models/blip2-emoji-mini');
const MODEL_FILES = [
  'config.json',
  'preprocessor_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'model.safetensors',
  'README.md',
];
const WASM = dirname(resolve('@tensorflow/tfjs-backend-wasm'));
const WASM_FILES = ['', '-simd', '-threaded-simd'].map((kind) => `tfjs-backend-wasm${kind}.wasm`);
const SIZE = 128;

/** Drawings by set and name, and the words of the buttons that add them. */
const DRAWINGS = [
  ['noto', 'hot-beverage', 'a cup'],
  ['noto', 'red-apple', 'an apple'],
  ['noto', 'dog-face', 'a dog'],
  ['fluent-emoji-flat', 'guitar', 'a guitar'],
  ['fluent-emoji-flat', 'rocket', 'a rocket'],
  ['fluent-emoji-flat', 'snowman', 'a snowman'],
];

async function copy(from, names, folder) {
  await mkdir(join(PUBLIC, folder), { recursive: true });
  for (const name of names) await copyFile(join(from, name), join(PUBLIC, folder, name));
}

/** An SVG document of one drawing of an iconify set. */
async function drawing(set, name) {
  const icons = JSON.parse(await readFile(resolve(`@iconify-json/${set}/icons.json`), 'utf8'));
  const { body, width = icons.width ?? 16, height = icons.height ?? 16 } = icons.icons[name];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${SIZE}" height="${SIZE}">${body}</svg>`;
}

for (const folder of ['base', 'wasm', 'drawings'])
  await rm(join(PUBLIC, folder), { recursive: true, force: true }); // nothing else: the folder may be anyone's
await copy(MODEL, MODEL_FILES, 'base');
await copy(WASM, WASM_FILES, 'wasm');
await mkdir(join(PUBLIC, 'drawings'));
for (const [set, name] of DRAWINGS) {
  const svg = Buffer.from(await drawing(set, name));
  await sharp(svg)
    .flatten({ background: '#fff' })
    .png()
    .toFile(join(PUBLIC, 'drawings', `${name}.png`));
}
const list = DRAWINGS.map(([, name, words]) => ({ file: `${name}.png`, words }));
await writeFile(join(PUBLIC, 'drawings', 'list.json'), JSON.stringify(list));

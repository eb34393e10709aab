#!/usr/bin/env node
// Draws the held-out pictures of a run with their captions before and after training: docs/own-pictures.svg of the README.
//
//   node recipes/drawings/draw.mjs data/drawings
//   npx blip2 fit --model models/blip2-emoji-mini --data data/drawings --output runs/drawings
//   node tools/docs/picture.mjs runs/drawings docs/own-pictures.svg
import { readFileSync, writeFileSync } from 'node:fs';
import sharp from 'sharp';

const [run, output] = process.argv.slice(2);
if (!output) throw new Error('expected: node tools/docs/picture.mjs RUN OUTPUT.svg');
const rows = readFileSync(`${run}/samples.jsonl`, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));

const [COLUMNS, WIDTH, HEIGHT, SIDE] = [5, 176, 176, 104];
const escape = (text) => text.replace(/[<&]/g, (c) => `&#${c.charCodeAt(0)};`);
const text = (y, fill, words) => `<text x="${WIDTH / 2}" y="${y}" fill="${fill}">${words}</text>`;
const [GREY, RIGHT, WRONG] = ['#6b7280', '#15803d', '#b91c1c'];

async function card({ image, reference, before, after }, i) {
  const small = await sharp(image)
    .resize(2 * SIDE)
    .png({ palette: true })
    .toBuffer();
  const [x, y] = [WIDTH * (i % COLUMNS), HEIGHT * Math.floor(i / COLUMNS)];
  return `<g transform="translate(${x} ${y})">
<rect x="${(WIDTH - SIDE) / 2}" y="10" width="${SIDE}" height="${SIDE}" fill="none" stroke="#e5e7eb"/>
<image x="${(WIDTH - SIDE) / 2}" y="10" width="${SIDE}" height="${SIDE}" href="data:image/png;base64,${small.toString('base64')}"/>
${text(SIDE + 34, GREY, escape(before))}
${text(SIDE + 54, RIGHT, judged(after, reference))}
</g>`;
}

/** The caption; words that are not in the expected one at this place are red and struck through. */
function judged(after, reference) {
  const wanted = reference.split(' ');
  const words = after.split(' ').map((word, i) => {
    if (word === wanted[i]) return escape(word);
    return `<tspan fill="${WRONG}" text-decoration="line-through">${escape(word)}</tspan>`;
  });
  return words.join(' ');
}

const cards = await Promise.all(rows.map(card));
const [width, height] = [COLUMNS * WIDTH, Math.ceil(rows.length / COLUMNS) * HEIGHT + 24];
const legend = `<text x="${width / 2}" y="${height - 10}" fill="#374151">grey: before training · green: after 300 steps · red: wrong words</text>`;
writeFileSync(
  output,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" text-anchor="middle">
<rect width="100%" height="100%" rx="8" fill="#fff" stroke="#e5e7eb"/>
${cards.join('\n')}
${legend}
</svg>
`,
);
console.log(`${rows.length} pictures in ${output}`);

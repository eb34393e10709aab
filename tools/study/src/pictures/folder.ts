/** Writes drawings as users have their data: a folder per split with pictures and metadata.jsonl. */
import { existsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import type { Drawing } from './charts';
import type { Random } from './random';
import { randomOf } from './random';

/** Pixels per side, as the small base takes them. */
const SIDE = 64;

/** Draws `counts` pictures of each split, always the same ones; a folder that is there stays. */
export async function writeDrawings(
  folder: string,
  draw: (random: Random) => Drawing,
  counts: Readonly<Record<string, number>>,
): Promise<void> {
  if (existsSync(folder)) return;
  const temporary = `${folder}.partial-${process.pid}`;
  const random = randomOf(1);
  for (const [split, count] of Object.entries(counts)) {
    await mkdir(join(temporary, split), { recursive: true });
    const rows: string[] = [];
    for (let i = 0; i < count; i++) {
      const { svg, text } = draw(random);
      const file_name = `${String(i).padStart(5, '0')}.png`;
      await writeFile(join(temporary, split, file_name), await render(svg));
      rows.push(JSON.stringify({ file_name, ...text }));
    }
    await writeFile(join(temporary, split, 'metadata.jsonl'), rows.join('\n') + '\n');
  }
  await rm(folder, { recursive: true, force: true });
  await rename(temporary, folder);
}

function render(svg: string): Promise<Buffer> {
  const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${SIDE}" height="${SIDE}" viewBox="0 0 100 100"><rect width="100" height="100" fill="#fff"/>${svg}</svg>`;
  return sharp(Buffer.from(text)).removeAlpha().png().toBuffer();
}

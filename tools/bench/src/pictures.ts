/** Images of a camera's shape for an epoch: coloured clouds, which take as long to decode as photographs. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { uniform, fold, rngKey } from '@blip2/nn';
import sharp from 'sharp';

const [WIDTH, HEIGHT, CLOUDS] = [640, 480, 24];

/** Writes `count` JPEG files of 640 × 480 and returns their paths. */
export async function writePictures(dir: string, count: number): Promise<string[]> {
  await mkdir(dir, { recursive: true });
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const file = join(dir, `${i}.jpg`);
      const small = uniform(fold(rngKey(0), i), CLOUDS * CLOUDS * 3);
      const raw = { width: CLOUDS, height: CLOUDS, channels: 3 } as const;
      await sharp(
        Uint8Array.from(small, (u) => Math.floor(u * 256)),
        { raw },
      )
        .resize(WIDTH, HEIGHT, { fit: 'fill', kernel: 'cubic' })
        .jpeg({ quality: 90 })
        .toFile(file);
      return file;
    }),
  );
}

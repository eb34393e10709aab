/** Captions in text files beside the pictures: NAME.txt, as data sets of this form are read. */
import { existsSync } from 'node:fs';
import { extname } from 'node:path';
import { writeFileAtomic } from '@blip2/weights/node';
import type { Writer } from './writer';

/** Writes one file per picture; several captions are one line each. A picture that has a text keeps it, unless `overwrite`. */
export function openSidecars(images: string[], overwrite = false): Writer {
  const stems = new Map<string, number>();
  for (const image of images) stems.set(stemOf(image), (stems.get(stemOf(image)) ?? 0) + 1);
  // a.jpg and a.png cannot both have a.txt
  const newFile = (image: string) => `${stems.get(stemOf(image))! > 1 ? image : stemOf(image)}.txt`;
  return {
    has: (image) => !overwrite && textOf(image) !== undefined,
    write: async (rows) => {
      for (const { image, texts } of rows)
        await writeFileAtomic(
          textOf(image) ?? newFile(image),
          texts.map((text) => text.replace(/\s+/g, ' ')).join('\n') + '\n',
        );
    },
    close: () => Promise.resolve(),
  };
}

const stemOf = (path: string) => path.slice(0, path.length - extname(path).length);

/** The file that a reader of the folder takes for the picture's text. */
function textOf(image: string): string | undefined {
  const names = ['.caption', '.txt'].flatMap((ending) => [stemOf(image) + ending, image + ending]);
  return names.find((file) => existsSync(file));
}

/** Files written by the original libraries: tools/parity/make_dataset_fixtures.py. */
import { copyFile, cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../spec/model-folder';
import { listSplits, openDataset } from '../dataset';
import { decodeImage } from '../decode-image';
import { DataError } from '../errors';
import type { Example } from '../example';
import { imageId, readImage, sameContent } from '../image-source';

const fixtures = fileURLToPath(new URL('../../fixtures/datasets/', import.meta.url));
const at = (name: string) => join(fixtures, name);
const COLOURS = [
  [200, 30, 30],
  [30, 160, 40],
  [40, 60, 220],
  [250, 250, 250],
  [240, 220, 40],
];
const CAPTIONS = [
  'a red square',
  'a green square, with a comma',
  'a "blue" square',
  'a white\nsquare',
  'ein gelbes Quadrat – ü',
];

/** Index of the fixture picture that an example shows. */
async function shown({ image }: Example): Promise<number> {
  const { data, width, height } = await decodeImage(image);
  expect([width, height]).toEqual([8, 8]);
  return COLOURS.findIndex((colour) => colour.every((value, c) => value === data[c]));
}
const pictures = async (examples: Example[]) => Promise.all(examples.map(shown));
const captions = (examples: Example[]) => examples.map((e) => e.caption);
const failure = async (promise: Promise<unknown>) => {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(DataError);
  return (error as DataError).message;
};

describe('Parquet, as datasets writes it', () => {
  it('reads splits, texts and images of all row groups', async () => {
    expect(await listSplits(at('parquet'))).toEqual(['train', 'test']);
    const { examples } = await openDataset(at('parquet'));
    expect(captions(examples)).toEqual(CAPTIONS.slice(0, 4));
    expect(examples.map((e) => e.fields)).toEqual([0, 1, 2, 3].map((id) => ({ id })));
    expect(await pictures(examples)).toEqual([0, 1, 2, 3]);
    const test = await openDataset(at('parquet'), { split: 'test' });
    expect([captions(test.examples), await pictures(test.examples)]).toEqual([[CAPTIONS[4]], [4]]);
  });

  it('reads zstd, and a list of answers', async () => {
    const { examples } = await openDataset(at('parquet-vqa/train.parquet'));
    expect(examples).toMatchObject([
      { question: 'which colour?', answer: 'red', answers: ['red', 'red', 'dark red'] },
    ]);
    expect(await pictures(examples)).toEqual([0]);
  });

  it('reads pictures that are base64 text, or in lists of one, and names a row with several', async () => {
    const base64 = (await openDataset(at('parquet-base64'))).examples;
    expect([captions(base64), await pictures(base64)]).toEqual([CAPTIONS.slice(0, 3), [0, 1, 2]]);
    const lists = (await openDataset(at('parquet-lists'))).examples;
    expect(await pictures(lists.slice(0, 2))).toEqual([0, 1]);
    await expect(readImage(lists[2].image)).rejects.toThrow('expected one image in the cell, found 2');
  });

  it('names a damaged file', async () => {
    const file = join(await temporaryFolder(), 'cut.parquet');
    const bytes = await readFile(at('parquet/data/train-00000-of-00001.parquet'));
    for (const part of [bytes.subarray(0, 900), bytes.subarray(500), Buffer.alloc(40)]) {
      await writeFile(file, part);
      expect(await failure(openDataset(file))).toMatch(/cut\.parquet: cannot be read as Parquet/);
    }
  });
});

describe('WebDataset', () => {
  it('joins the members of a sample and reads images at their offset', async () => {
    const { examples } = await openDataset(at('webdataset'));
    expect(captions(examples)).toEqual(CAPTIONS.slice(0, 3));
    expect(examples[1].fields).toEqual({ width: 8, url: 'made/1' });
    expect(examples[1].source).toBe(`${at('webdataset/train-000000.tar')}:000001`);
    expect(await pictures(examples)).toEqual([0, 1, 2]);
  });

  it('reads names that need a pax header', async () => {
    const { examples } = await openDataset(at('webdataset'), { split: 'test' });
    expect([captions(examples), await pictures(examples)]).toEqual([['a long name'], [3]]);
  });

  it('names a cut or compressed file', async () => {
    const dir = await temporaryFolder();
    const bytes = await readFile(at('webdataset/train-000000.tar'));
    await writeFile(join(dir, 'cut.tar'), bytes.subarray(0, 700));
    expect(await failure(openDataset(join(dir, 'cut.tar')))).toMatch(/damaged or cut off/);
    await writeFile(join(dir, 'x.tar.gz'), bytes);
    expect(await failure(openDataset(join(dir, 'x.tar.gz')))).toMatch(/unpack it/);
  });
});

describe('annotations in JSON', () => {
  it('COCO captions: all captions of an image in one row', async () => {
    expect(await listSplits(at('coco'))).toEqual(['train', 'validation']);
    const { examples } = await openDataset(at('coco'));
    expect(examples.map((e) => e.captions)).toEqual([0, 1].map((i) => [CAPTIONS[i], `${CAPTIONS[i]}!`]));
    expect(examples.map((e) => e.fields)).toEqual([{ image_id: 0 }, { image_id: 1 }]);
    expect(await pictures(examples)).toEqual([0, 1]);
    const val = await openDataset(at('coco/annotations/captions_val2017.json'));
    expect(await pictures(val.examples)).toEqual([2]);
  });

  it('VQAv2: questions joined with their annotators', async () => {
    for (const path of ['vqav2', 'vqav2/v2_OpenEnded_mscoco_val2014_questions.json']) {
      const { examples } = await openDataset(at(path), path === 'vqav2' ? { split: 'val' } : {});
      expect(examples).toHaveLength(1);
      const [example] = examples;
      expect([example.question, example.answer, example.answers?.length]).toEqual([
        'What color is the square?',
        'red',
        10,
      ]);
      expect(example.fields).toMatchObject({ question_type: 'what color is the', answer_type: 'other' });
      expect(await shown(example)).toBe(0);
    }
  });

  it('VQAv2 questions without annotations: names the missing file', async () => {
    const dir = await temporaryFolder();
    const name = 'v2_OpenEnded_mscoco_val2014_questions.json';
    await copyFile(at(`vqav2/${name}`), join(dir, name));
    expect(await failure(openDataset(dir))).toMatch(/found no v2_mscoco_val2014_annotations.json/);
  });

  it('LAVIS: captions, lists of captions, lists of answers', async () => {
    const train = await openDataset(at('lavis'));
    expect([captions(train.examples), await pictures(train.examples)]).toEqual([
      CAPTIONS.slice(0, 2),
      [0, 1],
    ]);
    const val = await openDataset(at('lavis'), { split: 'val' });
    expect(val.examples[0].captions).toEqual([CAPTIONS[2], 'blue']);
    const vqa = await openDataset(at('lavis/vqa'));
    expect(vqa.examples).toMatchObject([{ answer: 'red', answers: ['red', 'red', 'pink'] }]);
  });

  it("Karpathy's splits of COCO", async () => {
    const dir = await temporaryFolder();
    const image = (filename: string, split: string) => ({
      filepath: 'images',
      filename,
      split,
      imgid: 1,
      sentences: [{ raw: `${split} one` }, { raw: 'two' }],
    });
    await cp(at('lavis/images'), join(dir, 'images'), { recursive: true });
    const images = [image('0.png', 'train'), image('1.png', 'restval'), image('2.png', 'test')];
    await writeFile(join(dir, 'dataset_coco.json'), JSON.stringify({ images, dataset: 'coco' }));
    const { examples } = await openDataset(join(dir, 'dataset_coco.json'));
    expect(examples.map((e) => e.captions)).toEqual([
      ['train one', 'two'],
      ['restval one', 'two'],
    ]);
  });

  it('prints the keys of a file of another kind', async () => {
    const file = join(await temporaryFolder(), 'x.json');
    await writeFile(file, '{"boxes": []}');
    expect(await failure(openDataset(file))).toMatch(/expected COCO captions.*found keys \["boxes"\]/);
    await writeFile(file, '{');
    expect(await failure(openDataset(file))).toMatch(/cannot be read as JSON/);
  });
});

describe('CSV and TSV, as pandas writes them', () => {
  it.each(['csv', 'csv/metadata.csv', 'csv/rows.tsv'])(
    '%s: quotes, line breaks, splits, JSON lists',
    async (path) => {
      const { examples } = await openDataset(at(path));
      expect([captions(examples), await pictures(examples)]).toEqual([CAPTIONS.slice(2, 4), [0, 1]]);
      const val = await openDataset(at(path), { split: 'validation' });
      expect(val.examples[0].captions).toEqual(['one', 'two']);
    },
  );

  it('names lines that do not fit, and keeps the others with skip_bad', async () => {
    const dir = await temporaryFolder();
    const file = join(dir, 'rows.csv');
    await copyFile(at('csv/0.png'), join(dir, '0.png'));
    await writeFile(file, 'image,caption\n0.png,good\n0.png,one,two\n0.png\n0.png,\ngone.png,x\n0.png,end\n');
    const message = await failure(openDataset(file));
    expect(message).toMatch(/4 of 6 rows cannot be used/);
    expect(message).toMatch(/rows\.csv:3: .*\n.*rows\.csv:4: .*\n.*rows\.csv:5: .*\n.*rows\.csv:6: /);
    const { examples, skipped } = await openDataset(file, { skip_bad: true });
    expect(captions(examples)).toEqual(['good', 'end']);
    expect(skipped).toHaveLength(4);
  });
});

describe('splits by fractions', () => {
  async function twins(): Promise<string> {
    const dir = await temporaryFolder();
    await mkdir(join(dir, 'p'));
    const rows: string[] = [];
    for (let i = 0; i < 40; i++) {
      const bytes = Buffer.concat([await readFile(at('csv/0.png')), Buffer.from([i >> 1])]); // pairs of equal files
      await writeFile(join(dir, 'p', `${i}.png`), bytes);
      rows.push(JSON.stringify({ file_name: `p/${i}.png`, text: `${i >> 1}` }));
    }
    await writeFile(join(dir, 'metadata.jsonl'), rows.join('\n'));
    return dir;
  }

  it('never have equal images in two splits, and depend on the seed only', async () => {
    const dir = await twins();
    const split_fractions = { validation: 0.1, test: 0.25 };
    const get = async (split: string, seed: number) =>
      captions((await openDataset(dir, { split, split_fractions, seed })).examples);
    const parts = await Promise.all(['train', 'val', 'test'].map((split) => get(split, 3)));
    expect(parts.map((part) => part.length)).toEqual([26, 4, 10]);
    const sets = parts.map((part) => new Set(part));
    expect(sets.map((set) => set.size)).toEqual([13, 2, 5]);
    expect(new Set(parts.flat()).size).toBe(20);
    expect(await get('test', 3)).toEqual(parts[2]);
    expect(await get('test', 4)).not.toEqual(parts[2]);
    expect(await listSplits(dir, split_fractions)).toEqual(['train', 'validation', 'test']);
  });

  it('refuse invalid fractions, and data that already has splits', async () => {
    const dir = await twins();
    expect(await failure(openDataset(dir, { split_fractions: { test: 1 } }))).toMatch(/below 1, found 1/);
    expect(await failure(openDataset(dir, { split_fractions: { test: 0.001 } }))).toMatch(
      /test would be empty/,
    );
    expect(await failure(openDataset(at('coco'), { split_fractions: { test: 0.5 } }))).toMatch(
      /without splits/,
    );
  });
});

describe('images by name', () => {
  it('have an id that depends on their bytes only, not on their place', async () => {
    const [tar] = (await openDataset(at('webdataset'))).examples;
    const [parquet] = (await openDataset(at('parquet'))).examples;
    const file = at('csv/0.png');
    expect(await imageId(tar.image)).toBe(await imageId(file));
    expect(await imageId(parquet.image)).toBe(await imageId(file));
    expect([...(await sameContent([tar.image, at('csv/1.png'), parquet.image, file, file]))]).toEqual([
      0, 1, 0, 0, 0,
    ]);
  });

  it('are named in errors', async () => {
    const gone = at('webdataset/train-000000.tar') + '#bytes=999999999+5';
    await expect(readImage(gone)).rejects.toThrow(/#bytes=.*5 bytes too early/);
    await expect(readImage(at('parquet/data/test-00000-of-00001.parquet#row=0&column=id'))).rejects.toThrow(
      /no image bytes/,
    );
  });
});

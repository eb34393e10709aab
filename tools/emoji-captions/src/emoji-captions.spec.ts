import { mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { baseCaption, houseCaption, questions } from './captions';
import { emojiIndex, STYLES } from './emoji-index';
import { metadata, writePeople } from './people-folder';
import { parsePerson, peopleGrid, SPLITS, splitGrid, tripleOf, TONES } from './people-grid';
import { renderPixels, renderPng } from './render';

const rows = emojiIndex();
const grid = peopleGrid(rows);
const find = (style: string, label: string) => {
  const row = grid.find((r) => r.style === style && r.label === label);
  if (!row) throw new Error(`no ${style} drawing of "${label}"`);
  return row;
};

describe('emojiIndex', () => {
  it('has the expected numbers of rows with the pinned packages', () => {
    expect(rows.length).toBe(14709);
    expect(new Set(rows.map((row) => row.hex)).size).toBe(3944);
    expect(new Set(rows.map((row) => `${row.style} ${row.hex}`)).size).toBe(rows.length);
    expect([...new Set(rows.map((row) => row.style))]).toEqual([...STYLES]);
  });

  it('has a text and a drawing in every row', () => {
    for (const row of rows) {
      expect(row.label.length).toBeGreaterThan(0);
      expect(row.group.length * row.subgroup.length).toBeGreaterThan(0);
      expect(row.svg).toMatch(/^<svg .*<\/svg>$/s);
    }
  });
});

describe('peopleGrid', () => {
  it('is complete: 70 activities × 2 subjects × 6 tones × 4 styles', () => {
    expect(grid.length).toBe(3360);
    expect(new Set(grid.map((row) => row.activity)).size).toBe(70);
    expect(new Set(grid.map(tripleOf)).size).toBe(840);
    expect(new Set(grid.map((row) => `${row.style} ${tripleOf(row)}`)).size).toBe(3360);
    expect(new Set(grid.map((row) => row.tone))).toEqual(new Set(TONES));
  });

  it('reads labels', () => {
    expect(parsePerson('woman police officer: medium skin tone')).toEqual({
      subject: 'woman',
      activity: 'police officer',
      tone: 'medium',
    });
    expect(parsePerson('man walking: facing right, dark skin tone')?.activity).toBe('walking facing right');
    expect(parsePerson('man biking')?.tone).toBe('default');
    expect(parsePerson('person biking')).toBeUndefined();
    expect(parsePerson('woman and man holding hands')?.subject).toBe('woman');
    expect(parsePerson('man dancing: light skin tone, dark skin tone')).toBeUndefined();
  });
});

describe('splitGrid', () => {
  const split = splitGrid(grid);

  it('has 630, 42 and 168 triples in four styles each', () => {
    const triples = SPLITS.map((name) => new Set(split[name].map(tripleOf)).size);
    expect(triples).toEqual([630, 42, 168]);
    expect(SPLITS.map((name) => split[name].length)).toEqual([2520, 168, 672]);
  });

  it('shares no triple, hence no caption, between the parts', () => {
    const seen = SPLITS.flatMap((name) => [...new Set(split[name].map(tripleOf))]);
    expect(new Set(seen).size).toBe(840);
    const captions = SPLITS.flatMap((name) => [...new Set(split[name].map(houseCaption))]);
    expect(new Set(captions).size).toBe(840);
  });

  it('depends on the seed alone', () => {
    const names = (seed: number) => splitGrid(grid, seed).test.map((row) => `${row.style} ${row.hex}`);
    expect(names(0)).toEqual(split.test.map((row) => `${row.style} ${row.hex}`));
    expect(names(1)).not.toEqual(names(0));
    expect(
      splitGrid([...grid].reverse())
        .test.map(tripleOf)
        .sort(),
    ).toEqual(split.test.map(tripleOf).sort());
  });

  it('rejects a seed for which a word is missing in training', () => {
    const lonely = { ...grid[0], activity: 'only in test' };
    const crowd = grid.slice(0, 400);
    const rejected = Array.from({ length: 40 }, (_, seed) => seed).some((seed) => {
      try {
        return splitGrid([...crowd, lonely], seed) === undefined;
      } catch (error) {
        return /every activity in the training split, found none of only in test/.test(
          (error as Error).message,
        );
      }
    });
    expect(rejected).toBe(true);
  });
});

describe('captions', () => {
  it('have the house style', () => {
    const officer = { subject: 'woman', activity: 'police officer', tone: 'medium' } as const;
    expect(houseCaption(officer)).toBe('female police officer, Fitzpatrick type 4');
    expect(houseCaption({ ...officer, subject: 'man', tone: 'default' })).toBe('male police officer');
    const types = TONES.slice(1).map((tone) => houseCaption({ ...officer, tone }).split('type ')[1]);
    expect(types).toEqual(['1-2', '3', '4', '5', '6']);
  });

  it('have an article before a label', () => {
    expect(baseCaption({ label: 'hedgehog' })).toBe('hedgehog');
    expect(baseCaption({ label: 'hedgehog' }, true)).toBe('a hedgehog');
    expect(baseCaption({ label: 'ant' }, true)).toBe('an ant');
  });

  it('have three questions with answers from the label', () => {
    const row = find('noto', 'man cook: dark skin tone');
    expect(questions(row).map((pair) => pair.answer)).toEqual(['Fitzpatrick type 6', 'male', 'cook']);
    expect(metadata(row, 'vqa')).toHaveLength(3);
    expect(questions({ ...row, tone: 'default' })[0].answer).toBe('default');
  });
});

describe('rendering', () => {
  it('is deterministic, RGB, on white, and no two styles are alike', async () => {
    const officers = STYLES.map((style) => find(style, 'woman police officer: medium skin tone'));
    const first = await Promise.all(officers.map((row) => renderPixels(row, 64)));
    const again = await Promise.all(officers.map((row) => renderPixels(row, 64)));
    for (const [i, pixels] of first.entries()) {
      expect(pixels.length).toBe(64 * 64 * 3);
      expect(Buffer.compare(pixels, again[i])).toBe(0);
      expect([...pixels.subarray(0, 3)]).toEqual([255, 255, 255]);
      const dark = pixels.filter((value) => value < 128).length;
      expect(dark).toBeGreaterThan(300);
    }
    expect(new Set(first.map((pixels) => Buffer.from(pixels).toString('base64'))).size).toBe(4);
  });

  it('writes PNG files with exactly these pixels', async () => {
    const row = find('twemoji', 'man judge');
    const { data, info } = await sharp(await renderPng(row, 64))
      .raw()
      .toBuffer({ resolveWithObject: true });
    expect([info.width, info.height, info.channels]).toEqual([64, 64, 3]);
    expect(Buffer.compare(data, await renderPixels(row, 64))).toBe(0);
  });
});

describe('writePeople', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'emoji-captions-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('writes every image and line once, and does not change a complete folder', async () => {
    const output = join(folder, 'people');
    const made = await writePeople({ output, size: 16, limit: 50 });
    expect(made.rendered).toBe(true);
    expect(made.images).toEqual({ train: 50, validation: 50, test: 50 });
    const lines = (await readFile(join(output, 'test', 'metadata.jsonl'), 'utf8')).trimEnd().split('\n');
    const files = (await readdir(join(output, 'test'))).filter((name) => name.endsWith('.png'));
    expect(lines.map((line) => JSON.parse(line).file_name).sort()).toEqual(files.sort());
    expect(Object.keys(JSON.parse(lines[0]))).toEqual([
      'file_name',
      'text',
      'subject',
      'activity',
      'tone',
      'style',
      'label',
    ]);

    const before = await stat(join(output, 'manifest.json'));
    expect((await writePeople({ output, size: 16, limit: 50 })).rendered).toBe(false);
    expect((await stat(join(output, 'manifest.json'))).mtimeMs).toBe(before.mtimeMs);
    expect((await writePeople({ output, size: 8, limit: 50 })).rendered).toBe(true);
    expect(await readdir(folder)).toEqual(['people']);
  });
});

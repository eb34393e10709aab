import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { drawChart } from './charts';
import { COLOURS } from './colours';
import { writeDrawings } from './folder';
import { randomOf } from './random';
import { drawScene } from './scenes';

const many = <T>(draw: (random: ReturnType<typeof randomOf>) => T) => {
  const random = randomOf(1);
  return Array.from({ length: 200 }, () => draw(random));
};

describe('charts', () => {
  it('have captions of one form, for all kinds and numbers', () => {
    const captions = many(drawChart).map(({ text }) => ('caption' in text ? text.caption : ''));
    const form =
      /^((bar|pie) chart of [2-4] parts|line chart of [2-4] lines), (\w+) is (high|larg)est, (?!\3)\w+ is (low|small)est$/;
    expect(captions.filter((caption) => !form.test(caption))).toEqual([]);
    expect(new Set(captions.map((caption) => caption.split(',')[0])).size).toBe(9);
  });

  it('show what the caption says', () => {
    for (const { svg, text } of many(drawChart)) {
      const { caption } = text as { caption: string };
      if (!caption.startsWith('bar')) continue;
      const bars = [...svg.matchAll(/height="([\d.]+)" fill="(#\w+)"/g)].map(([, height, fill]) => ({
        height: Number(height),
        fill,
      }));
      const highest = bars.reduce((a, b) => (b.height > a.height ? b : a));
      const [, colour] = /, (\w+) is highest/.exec(caption)!;
      expect(COLOURS[colour as keyof typeof COLOURS]).toBe(highest.fill);
      expect(caption).toContain(`of ${bars.length} parts`);
    }
  });
});

describe('scenes', () => {
  it('have four kinds of questions, with the answer in the picture', () => {
    const drawn = many(drawScene);
    const questions = drawn.map(({ text }) => text as { question: string; answer: string });
    expect(new Set(questions.map(({ question }) => question.split(' ').slice(0, 2).join(' ')))).toEqual(
      new Set(['which colour', 'which shape', 'where is', 'how many']),
    );
    for (const [i, { question, answer }] of questions.entries()) {
      const shapes = drawn[i].svg.match(/<g /g)!.length;
      if (question.startsWith('how many')) expect(answer).toBe(['one', 'two', 'three', 'four'][shapes - 1]);
      if (question.startsWith('which colour'))
        expect(drawn[i].svg).toContain(COLOURS[answer as keyof typeof COLOURS]);
    }
  });
});

describe('a folder of drawings', () => {
  it('is the same every time, has the splits, and stays when it is there', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'blip2-drawings-'));
    const read = (name: string) => readFile(join(dir, name, 'test', 'metadata.jsonl'), 'utf8');
    await writeDrawings(join(dir, 'a'), drawChart, { train: 3, test: 2 });
    await writeDrawings(join(dir, 'b'), drawChart, { train: 3, test: 2 });
    expect(await read('a')).toBe(await read('b'));
    await writeDrawings(join(dir, 'a'), drawScene, { test: 1 });
    expect((await read('a')).trim().split('\n')).toHaveLength(2);
    const { width, height, channels } = await sharp(join(dir, 'a', 'train', '00002.png')).metadata();
    expect([width, height, channels]).toEqual([64, 64, 3]);
  });
});

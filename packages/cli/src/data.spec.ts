import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cli, IMAGE, TINY, tinyData } from '../spec/testing';

async function badData(): Promise<string> {
  const root = await tinyData(1);
  await writeFile(join(root, 'train', 'cut.png'), (await readFile(IMAGE)).subarray(0, 40));
  const rows = [
    { file_name: 'cut.png', text: 'a cut picture' },
    { file_name: 'gone.png', text: 'a lost picture' },
    { file_name: 'red.png', text: 'null' },
  ];
  await mkdir(join(root, 'test'), { recursive: true });
  await copyFile(IMAGE, join(root, 'test', 'again.png'));
  const file = join(root, 'train', 'metadata.jsonl');
  await writeFile(file, (await readFile(file, 'utf8')) + rows.map((row) => JSON.stringify(row)).join('\n'));
  return root;
}

describe('data check', () => {
  it('fails with a list of unusable rows and images', async () => {
    const root = await badData();
    const { code, out, err } = await cli(['data', 'check', root]);
    expect(code).toBe(1);
    expect(err).toMatch(/2 of 12 rows cannot be used; repair them, or leave them out with --skip-bad/);
    for (const text of [
      'rows that cannot be used: 2',
      'gone.png',
      'metadata.jsonl:4: ',
      'images in more than one split: 3',
      'caption with a placeholder instead of words: "null"',
    ])
      expect(out).toContain(text);
  });

  it('reads other columns and another folder of pictures', async () => {
    const root = await tinyData(1);
    const file = join(root, 'rows.csv');
    await writeFile(file, 'pic;words\nred;a red square\n');
    const where = [
      '--image-column',
      'pic',
      '--caption-column',
      'words',
      '--image-folder',
      join(root, 'train'),
    ];
    const { code, out } = await cli(['data', 'check', file, ...where]);
    expect([code, out]).toEqual([0, expect.stringMatching(/all +1 +0 +1 +1/)]);
    expect((await cli(['data', 'check', file, '--image-column', 'pic'])).out).toMatch(
      /columns pic, words; did you mean caption_column: words\?/,
    );
  });

  it('prints one document with --json, and writes an HTML page with images and escaped texts', async () => {
    const root = await badData();
    const file = join(root, 'train', 'metadata.jsonl');
    await writeFile(
      file,
      (await readFile(file, 'utf8')) + '\n{"file_name":"red.png","text":"<b>bold</b> & red"}',
    );
    const page = join(root, 'sheet.html');
    const args = ['data', 'check', root, '--json', '--model', TINY, '--max-text-length', '5', '--html', page];
    const { code, out } = await cli([...args, '--skip-bad']);
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report.usable).toBe(false);
    expect(report.splits.map((s: { split: string; rows: number }) => [s.split, s.rows])).toEqual([
      ['train', 7],
      ['validation', 3],
      ['test', 3],
    ]);
    expect(report.splits[0].tokens.max).toBeGreaterThan(5);
    expect(report.splits[0].truncated).toBeGreaterThan(0);
    const html = await readFile(page, 'utf8');
    expect(html).toContain('&lt;b&gt;bold&lt;/b&gt; &amp; red');
    expect(html).not.toContain('<b>bold</b>');
    expect(html.match(/<img src="data:image\/webp;base64,/g)!.length).toBeGreaterThan(5);
    const failed = await cli(args);
    expect(failed.code).toBe(1);
    expect(JSON.parse(failed.out).unusable).toBe(2);
  });

  it('succeeds on good data, and names a path that does not exist', async () => {
    expect((await cli(['data', 'check', await tinyData(1)])).code).toBe(0);
    const { code, err } = await cli(['data', 'check', '/nowhere/at/all']);
    expect(code).toBe(1);
    expect(err).toContain('/nowhere/at/all: there is no such folder or file');
  });
});

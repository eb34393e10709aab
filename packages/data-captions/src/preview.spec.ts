import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../spec/model-folder';
import { fileOfImage, previewData } from './preview';

it('has the first rows as the file has them, with the roles that are found and those that are given', async () => {
  const file = join(await temporaryFolder(), 'rows.csv');
  await writeFile(file, 'image,words,n\na.png,a mug,1\nb.png,a lamp,2\n');
  expect(await previewData(file, {}, 1)).toEqual({
    columns: ['image', 'words', 'n'],
    roles: { image: 'image' },
    rows: [{ image: 'a.png', words: 'a mug', n: '1' }],
  });
  const { roles } = await previewData(file, { caption_column: 'words' });
  expect(roles).toEqual({ image: 'image', caption: 'words' });
});

it('finds the file of an image', () => {
  expect(['a.png', '/x/shard.tar#bytes=5+9', '/x/d.parquet#row=7&column=image'].map(fileOfImage)).toEqual([
    'a.png',
    '/x/shard.tar',
    '/x/d.parquet',
  ]);
});

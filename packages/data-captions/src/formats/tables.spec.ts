/** CSV as spreadsheets, Flickr8k, Flickr30k and pandas write it: docs/data.md lists the forms. */
import { describe, expect, it } from 'vitest';
import type { Case, Files } from '../../spec/data-folder';
import { check, folderOf, GREEN, json, lines, RED, rowsOf, utf16 } from '../../spec/data-folder';

describe('Flickr', () => {
  const cases: Case[] = [
    [
      '8k from Kaggle',
      { 'captions.txt': 'image,caption\na.png,"one , ""two"" ."\n', 'Images/a.png': RED },
      ['red: one , "two" .'],
    ],
    [
      '8k tokens with their lists',
      {
        'Flickr8k_text/Flickr8k.token.txt': 'a.png#0\tone "x\na.png#1\ttwo\nb.png#0\tthree',
        'Flickr8k_text/Flickr8k.lemma.token.txt': 'a.png#0\tlemma',
        'Flickr8k_text/Flickr_8k.trainImages.txt': 'a.png\n',
        'Flickr8k_text/Flickr_8k.devImages.txt': 'b.png\n',
        'Flicker8k_Dataset/a.png': RED,
        'Flicker8k_Dataset/b.png': GREEN,
      },
      ['train: red: one "x', 'train: red: two', 'validation: green: three'],
    ],
    ['30k tokens', { 'results_20130124.token': 'a.png#0\tone', 'flickr30k-images/a.png': RED }, ['red: one']],
    [
      '30k results.csv',
      {
        'results.csv':
          'image_name| comment_number| comment\na.png| 0| Two "men .\na.png| 1| "Stop .\na.png| 2   no separator\n',
        'flickr30k_images/flickr30k_images/a.png': RED,
      },
      ['red: Two "men .', 'red: "Stop .', 'bad: expected 3 cells, as in the header, found 2 cells'],
    ],
    [
      'Karpathy',
      {
        'dataset_flickr8k.json': json({
          images: [{ filename: 'a.png', split: 'restval', sentences: [{ raw: 'one' }] }],
          dataset: 'flickr8k',
        }),
        'Images/a.png': RED,
      },
      ['train: red: one'],
    ],
    [
      'annotations of nlphuji',
      {
        'f.csv': 'raw,sentids,split,filename,img_id\n"[""one"", ""two""]","[0, 1]",train,a.png,0\n',
        'a.png': RED,
      },
      ['train: red: one / two'],
    ],
  ];
  it.each(cases)('%s', check);
});

describe('spreadsheets', () => {
  const text = (separator: string, end: string) =>
    `image${separator}caption${end}a.png${separator}Grüße${end}`;
  const picture = { 'a.png': RED };
  const cases: Case[] = [
    ...[',', ';', '\t', '|'].map((separator): Case => [
      `separator ${JSON.stringify(separator)}`,
      { 'x.csv': text(separator, '\n'), ...picture },
      ['red: Grüße'],
    ]),
    ...['\r\n', '\r'].map((end): Case => [
      `line end ${JSON.stringify(end)}`,
      { 'x.csv': text(';', end), ...picture },
      ['red: Grüße'],
    ]),
    ['sep= of Excel', { 'x.csv': `sep=;\r\n${text(';', '\r\n')}`, ...picture }, ['red: Grüße']],
    ['byte order mark', { 'x.csv': `\ufeff${text(';', '\n')}`, ...picture }, ['red: Grüße']],
    ['UTF-16', { 'x.csv': utf16(text('\t', '\r\n')), ...picture }, ['red: Grüße']],
    ['UTF-16, big-endian', { 'x.txt': utf16(text('\t', '\r\n'), true), ...picture }, ['red: Grüße']],
    [
      'Windows-1252',
      {
        'x.csv': Buffer.from(`image;caption\na.png;\x84Gr\xfc\xdfe\x93 \x96 caf\xe9 5 \x80`, 'latin1'),
        ...picture,
      },
      ['red: „Grüße“ – café 5 €'],
    ],
    [
      'Mac Roman',
      { 'x.csv': Buffer.from('image,caption\ra.png,gr\x9fn und sch\x9an\r', 'latin1'), ...picture },
      ['red: grün und schön'],
    ],
    [
      'empty rows and columns at the end',
      { 'x.csv': 'image;caption;;\na.png;one;;\n;;;\n', ...picture },
      ['red: one'],
    ],
    ['an index without a name', { 'x.csv': ',image,caption\n0,a.png,one\n', ...picture }, ['red: one']],
    [
      'quotes inside a cell',
      { 'x.csv': 'image,caption\na.png,a "red" one\n', ...picture },
      ['red: a "red" one'],
    ],
    ['no header', { 'x.csv': 'a.png,one\n', ...picture }, ['red: one']],
    [
      'UTF-16 JSON Lines of PowerShell',
      { 'x.jsonl': utf16('{"image":"a.png","caption":"Grüße"}\r\n'), ...picture },
      ['red: Grüße'],
    ],
  ];
  it.each(cases)('%s', check);

  it.each([
    ['Cyrillic', Buffer.from([0xea, 0xf0, 0xe0, 0xf1, 0xed, 0xfb, 0xe9])],
    ['Shift JIS', Buffer.from([0x90, 0xd4, 0x82, 0xa2, 0x8e, 0x6c])],
    ['Polish', Buffer.from('\xbf\xf3\xb3ty pies', 'latin1')],
    ['Turkish', Buffer.from('k\xfdrm\xfdz\xfd', 'latin1')],
    ['a broken UTF-8 file', Buffer.concat([Buffer.from('grün '), Buffer.from([0xfc]), Buffer.from('n')])],
  ])('refuses another encoding instead of learning wrong letters: %s', async (_, bytes) => {
    const head = Buffer.from('image,caption\na.png,');
    const dir = await folderOf({ 'x.csv': Buffer.concat([head, bytes, Buffer.from('\n')]), 'a.png': RED });
    await expect(rowsOf(dir)).rejects.toThrow(/x\.csv:2: expected text in UTF-8.*save the file as UTF-8/);
  });

  it('names an unclosed quote, instead of learning the rows after it as one text', async () => {
    const rows = ['a.png,"one', 'a.png,"two"', 'a.png,"three"', 'a.png,"four"'].join('\n');
    const found = await rowsOf(await folderOf({ 'x.csv': `image,caption\n${rows}\n`, 'a.png': RED }));
    expect(found.some((row) => row.includes('bad: expected a quote'))).toBe(true);
    expect(found.join()).not.toMatch(/red: .*\n/);
  });
});

describe('lists in cells', () => {
  const csv = (cell: string): Files => ({
    'x.csv': `image,caption\na.png,"${cell.replaceAll('"', '""')}"\n`,
    'a.png': RED,
  });
  const cases: Case[] = [
    ['Python', csv(`['one', "it's two"]`), ["red: one / it's two"]],
    ['escapes', csv(`['it\\'s', "caf\\xe9\\n"]`), ["red: it's / café\n"]],
    ['numpy, over several lines', csv(`['one' 'two'\n 'three']`), ['red: one / two / three']],
    ['array', csv(`array(['one', 'two'], dtype=object)`), ['red: one / two']],
    ['tuple', csv(`('one', 'two')`), ['red: one / two']],
    ['JSON', csv('["one", "two"]'), ['red: one / two']],
    [
      'dicts of answers',
      {
        'x.csv': `image,question,answers\na.png,q,"[{'answer': 'yes', 'answer_id': 1}, {'answer': 'no', 'answer_id': 2}]"\n`,
        'a.png': RED,
      },
      ['red: q / yes / no'],
    ],
    ['words in brackets are text', csv('[one] of two'), ['red: [one] of two']],
    ['cut by numpy: refused', csv(`['one' 'two' ... 'three']`), [/^bad: expected a text, or a list/]],
    [
      'in JSON Lines too',
      { 'x.jsonl': lines({ image: 'a.png', caption: "['one', 'two']" }), 'a.png': RED },
      ['red: one / two'],
    ],
  ];
  it.each(cases)('%s', check);
});

/** Forms of data that people have, each as its tool writes it: docs/data.md lists them. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Case, Files } from '../../spec/data-folder';
import { check, folderOf, GREEN, json, lines, RED, rowsOf, utf16 } from '../../spec/data-folder';

const base64 = RED.toString('base64');

describe('captions beside pictures', () => {
  const cases: Case[] = [
    [
      'kohya, any case of the ending',
      { '10_x/a (1).PNG': RED, '10_x/a (1).txt': 'one\n', '10_x/b.png': GREEN, '10_x/b.TXT': 'two' },
      ['red: one', 'green: two'],
    ],
    [
      '.caption wins over tags in .txt',
      { 'a.png': RED, 'a.txt': 'tag, tag', 'a.caption': 'a red square' },
      ['red: a red square'],
    ],
    [
      'lines are captions of one picture',
      { 'a.png': RED, 'a.txt': 'one\r\n\r\ntwo\r\n' },
      ['red: one / two'],
    ],
    ["name with the picture's ending", { 'a.png': RED, 'a.png.txt': 'one' }, ['red: one']],
    [
      'split folders',
      { 'train/a.png': RED, 'train/a.txt': 'one', 'val/b.png': GREEN, 'val/b.txt': 'two' },
      ['train: red: one', 'validation: green: two'],
    ],
    [
      'img2dataset files, with logs',
      {
        '00000/0.png': RED,
        '00000/0.txt': 'one',
        '00000/0.json': '{"url": "u", "caption": "one"}',
        '00000.parquet': 'log',
        '00000_stats.json': '{}',
      },
      ['red: one'],
    ],
    [
      'only .json beside',
      { 'a.png': RED, 'a.json': '{"caption": "one"}', 'b.png': GREEN, 'b.json': '{"caption": "two"}' },
      ['red: one', 'green: two'],
    ],
    [
      'encodings of Notepad',
      { 'a.png': RED, 'a.txt': utf16('Größe'), 'b.png': GREEN, 'b.txt': Buffer.from('café', 'latin1') },
      ['red: Größe', 'green: café'],
    ],
    [
      'pictures and texts that stand alone are named',
      { 'a.png': RED, 'a.txt': 'one', 'b.png': GREEN, 'c.txt': 'x', 'readme.txt': 'x' },
      [
        'red: one',
        /^bad: expected a caption in "b.txt" or .caption beside it/,
        /^bad: expected a picture of the same name/,
      ],
    ],
    [
      'hidden files of macOS',
      { 'a.png': RED, 'a.txt': 'one', '._a.txt': '\0', '._a.png': '\0', '__MACOSX/a.png': 'x' },
      ['red: one'],
    ],
    [
      "kohya's metadata",
      {
        'meta_cap.json': json({ a: { caption: 'one', tags: 'x' }, 'sub/b.png': { tags: 'two, tags' } }),
        'img/a.png': RED,
        'img/sub/b.png': GREEN,
      },
      ['red: one', 'green: two, tags'],
    ],
  ];
  it.each(cases)('%s', check);
});

describe('chats', () => {
  const turn = (from: string, value: string) => ({ from, value });
  const chat = (question: string, extra: object = { image: 'a.png' }) => ({
    ...extra,
    conversations: [turn('human', question), turn('gpt', 'one')],
  });
  const data = (...rows: unknown[]): Files => ({ 'x.json': json(rows), 'a.png': RED });
  const cases: Case[] = [
    [
      'LLaVA: descriptions are captions',
      data(
        chat('<image>\nProvide a brief description of the given image.'),
        chat('Describe the image concisely.\n<image>'),
      ),
      ['red: one', 'red: one'],
    ],
    [
      'LLaVA: questions',
      data(chat('<image>\nDescribe the image concisely.'), chat('What?\n<image>')),
      ['red: Describe the image concisely. / one', 'red: What? / one'],
    ],
    [
      'LLaMA-Factory',
      data({
        messages: [
          { role: 'system', content: 's' },
          { role: 'user', content: '<image>What?' },
          { role: 'assistant', content: 'one' },
        ],
        images: ['a.png'],
      }),
      ['red: What? / one'],
    ],
    [
      'OpenAI: parts',
      {
        'x.jsonl': lines({
          messages: [
            {
              role: 'user',
              content: [
                { type: 'image_url', image_url: { url: `data:image/png;base64,${base64}` } },
                { type: 'text', text: 'What?' },
              ],
            },
            { role: 'assistant', content: [{ type: 'text', text: 'one' }] },
          ],
        }),
      },
      ['red: What? / one'],
    ],
    [
      'Qwen: path in the text',
      data({ conversations: [turn('user', 'Picture 1: <img>a.png</img>\nWhat?'), turn('assistant', 'one')] }),
      ['red: What? / one'],
    ],
    [
      'ms-swift',
      { 'x.jsonl': lines({ query: '<image>What?', response: 'one', images: ['a.png'] }), 'a.png': RED },
      ['red: What? / one'],
    ],
    [
      'Alpaca',
      data({ instruction: 'What?', input: '', output: 'one', images: ['a.png'] }),
      ['red: What? / one'],
    ],
    [
      'several turns are refused',
      data({
        image: 'a.png',
        conversations: [
          turn('human', 'What?'),
          turn('gpt', 'one'),
          turn('human', 'And it?'),
          turn('gpt', 'two'),
        ],
      }),
      [/^bad: expected one question and its answer, found a chat of 2 answers/],
    ],
    [
      'two pictures are refused',
      data(chat('<image><image>Which?', { images: ['a.png', 'a.png'] })),
      [/^bad: expected one picture in a row/],
    ],
    [
      'text alone is refused',
      data(chat('What?', { id: 'x' })),
      [
        /^bad: expected a picture of the chat \("image": its path, or "images"\), found none \(columns id, conversations\)$/,
      ],
    ],
    [
      'an empty answer is refused',
      data({ image: 'a.png', conversations: [turn('human', 'What?'), turn('gpt', ' ')] }),
      [/^bad: expected an answer with words/],
    ],
    [
      'a broken answer is not called a column',
      data({ image: 'a.png', conversations: [turn('human', 'What?'), turn('gpt', 'a caf\ufffd')] }),
      [/^bad: expected text without U\+FFFD in the answer/],
    ],
  ];
  it.each(cases)('%s', check);
});

describe('a missing part of a row is named as the file has it', () => {
  const pictures = [1, 2].map((id) => ({ id, file_name: 'a.png' }));
  const cases: Case[] = [
    [
      'COCO',
      { 'x.json': json({ images: pictures, annotations: [{ image_id: 1, caption: 'one' }] }), 'a.png': RED },
      ['red: one', 'bad: expected a caption of this image in "annotations", found none'],
      'x.json',
    ],
    [
      'VQAv2',
      {
        'v2_questions.json': json({
          questions: [1, 2].map((question_id) => ({ question_id, image: 'a.png', question: 'What?' })),
        }),
        'v2_annotations.json': json({ annotations: [{ question_id: 1, answers: [{ answer: 'one' }] }] }),
        'a.png': RED,
      },
      [
        'red: What? / one',
        'bad: expected the answers to this "question_id" in the file of annotations, found none',
      ],
      'v2_questions.json',
    ],
    [
      'an empty caption file',
      { 'a.png': RED, 'a.txt': ' \n', 'b.png': RED, 'b.txt': 'one' },
      ['red: one', 'bad: expected a caption beside it, found no words in "a.txt"'],
    ],
  ];
  it.each(cases)('%s', check);
});

describe('pictures as base64', () => {
  const cases: Case[] = [
    [
      'OFA captions, no header',
      { 'x.tsv': `0\t1\tone&&two\tbox&&man\t${base64}\r\n1\t2\tthree\t\t${GREEN.toString('base64')}\r\n` },
      ['red: one / two', 'green: three'],
    ],
    [
      'OFA questions',
      { 'x.tsv': `0\t1\tWhat?\t0.6|!+yes&&1.0|!+no\tbox\t${base64}\n` },
      ['red: What? / yes / no'],
    ],
    [
      'CSV with a header, quoted',
      { 'x.csv': `caption,image\n"é, one","data:image/png;base64,${base64}"\n` },
      ['red: é, one'],
    ],
    [
      'JSON Lines',
      { 'x.jsonl': lines({ image: base64, caption: 'é one' }, { image: { bytes: base64 }, caption: 'two' }) },
      ['red: é one', 'red: two'],
    ],
    [
      'JSON, two equal pictures, slashes of PHP',
      {
        'x.json': json([
          { image: base64, caption: 'é' },
          { image: base64, caption: 'two' },
        ]).replaceAll('/', '\\/'),
      },
      ['red: é', 'red: two'],
    ],
    [
      'in UTF-16: refused',
      { 'x.jsonl': utf16(lines({ image: base64, caption: 'one' })) },
      [/^bad: expected one picture in a row of UTF-8 text/],
    ],
  ];
  it.each(cases)('%s', check);
});

describe('where columns and pictures are', () => {
  const row = { img_pth: 'a.png', wording: 'a long text', n: 1 };
  const rows: Files = { 'x.jsonl': lines(row), 'a.png': RED };

  it('are told by the layout', async () => {
    const dir = await folderOf({
      'rows/x.jsonl': lines({ ...row, q: 'What?', a: 7 }),
      'elsewhere/deep/a.png': RED,
    });
    const names = { image_column: 'img_pth', image_folder: join(dir, 'elsewhere') };
    expect(await rowsOf(join(dir, 'rows'), { ...names, caption_column: 'wording' })).toEqual([
      'red: a long text',
    ]);
    expect(await rowsOf(join(dir, 'rows'), { ...names, question_column: 'q', answer_column: 'a' })).toEqual([
      'red: What? / 7',
    ]);
  });

  it('img and txt are known', async () => {
    const dir = await folderOf({ 'x.csv': 'img,txt\na.png,hello\n', 'a.png': RED });
    expect(await rowsOf(dir)).toEqual(['red: hello']);
  });

  it('are suggested by an error', async () => {
    const dir = await folderOf(rows);
    expect((await rowsOf(dir)).join()).toMatch(
      /columns img_pth, wording, n; did you mean image_column: img_pth\?.*columns img_pth, wording, n; did you mean caption_column: wording\?/,
    );
    const word = await folderOf({ 'x.csv': 'img,notes\na.png,hello\n', 'a.png': RED });
    expect((await rowsOf(word)).join()).toContain('columns img, notes; did you mean caption_column: notes?');
    expect((await rowsOf(dir, { image_column: 'image' }))[0]).toMatch(
      /^bad: expected a column "image" \(image_column\), found columns img_pth, wording, n/,
    );
  });

  it('a name on both sides of the case, with Windows separators, or of an absolute path', async () => {
    const files = {
      'x.csv': 'image,caption\nImages\\A.PNG,one\nD:\\me\\images\\a.png,two\n',
      'images/a.png': RED,
    };
    const dir = await folderOf(files);
    expect(await rowsOf(dir)).toEqual([
      'red: one',
      expect.stringMatching(/found no file "D:.*; write "images\/a.png"/),
    ]);
    expect(await rowsOf(dir, { image_folder: dir })).toEqual(['red: one', 'red: two']);
  });

  it('one picture of two with the same name is chosen by the split, never by chance', async () => {
    const pictures = { 'train/a.png': RED, 'val/a.png': GREEN };
    const split = await folderOf({
      'x.csv': 'image,caption,split\na.png,one,train\na.png,two,Val\n',
      ...pictures,
    });
    expect(await rowsOf(split)).toEqual(['train: red: one', 'validation: green: two']);
    const none = await folderOf({ 'x.csv': 'image,caption\na.png,one\n', ...pictures });
    expect((await rowsOf(none))[0]).toMatch(/^bad: expected one image file, found "a.png" in 2 folders/);
  });

  it('pictures below the data file win over those of a data set beside it', async () => {
    const dir = await folderOf({
      'mine/x.csv': 'image,caption\na.png,one\n',
      'mine/pics/a.png': RED,
      'my_images/a.png': GREEN,
      'train2017/000000000007.png': GREEN,
    });
    expect(await rowsOf(join(dir, 'mine'))).toEqual(['red: one']);
  });

  it('a column that is null is named', async () => {
    const dir = await folderOf({
      'x.jsonl': lines(
        { image: 'a.png', question: 'What?', answer: null },
        { image: 'a.png', Caption: null },
        { image: null, caption: 'one' },
      ),
      'a.png': RED,
    });
    expect(await rowsOf(dir)).toEqual([
      expect.stringMatching(/an "answer" to the question, found columns .*; "answer" is null/),
      expect.stringMatching(/found columns image, Caption; "Caption" is null/),
      expect.stringMatching(/an image path .*; "image" is null/),
    ]);
  });

  it('a split column wins over the name of the file', async () => {
    const dir = await folderOf({ 'test.csv': 'image,caption,split\na.png,one,TRAIN\n', 'a.png': RED });
    expect(await rowsOf(dir)).toEqual(['train: red: one']);
  });
});

describe('other files', () => {
  it.each([
    ['a spreadsheet', { 'x.xlsx': 'PK' }, /"x.xlsx" is a spreadsheet; save it as CSV/],
    ['an archive', { 'x.zip': 'PK' }, /"x.zip" is an archive; unpack it/],
    ['pictures without captions', { 'a.png': RED }, /found 1 \.png; pictures alone have no captions/],
    [
      'save_to_disk',
      { 'state.json': '{}', 'data-0.arrow': '' },
      /written by save_to_disk.*load_from_disk\(.*\)\.to_parquet/,
    ],
    [
      'save_to_disk with splits',
      { 'dataset_dict.json': '{"splits": ["train"]}' },
      /for split, d in datasets/,
    ],
  ])('are named with what to do: %s', async (_, files, message) => {
    await expect(rowsOf(await folderOf(files as Files))).rejects.toThrow(message);
  });

  it('addresses that are not downloaded', async () => {
    const dir = await folderOf({ 'gcc.tsv': 'a red thing\thttps://example.org/a.jpg\n' });
    expect((await rowsOf(dir))[0]).toMatch(
      /found the address "https:\/\/example.org\/a.jpg"; download it first/,
    );
  });

  it('have short errors, whatever is in them', async () => {
    const long = 'x'.repeat(1_000_000);
    const header = Array.from({ length: 100_000 }, (_, i) => `column${i}`).join();
    const files: Files[] = [
      { 'x.csv': `${header}\n${header}\n` },
      { 'x.csv': `image,caption\n${long},${long}\n` },
      { 'x.csv': `${long}\n${long}\n` },
      { 'x.jsonl': lines({ image: long, caption: 'one' }, { [long]: long }) + '\n{' + long },
      { 'x.json': `{${long}` },
      { 'x.json': json({ [long]: 1 }) },
    ];
    for (const one of files) {
      const dir = await folderOf(one);
      const found = await rowsOf(dir).then((rows) => rows.join('\n'), String);
      expect(found.replaceAll(dir, '').length, Object.keys(one)[0]).toBeLessThan(1500);
      expect(found).toMatch(/expected|cannot be read/);
    }
  });
});

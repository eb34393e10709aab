/** Forms of data that people have, each as its tool writes it: docs/data.md lists them. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Files } from '../../spec/data-folder';
import { folderOf, GREEN, RED, rowsOf } from '../../spec/data-folder';

const json = (value: unknown) => JSON.stringify(value, null, 1);
const lines = (...rows: unknown[]) => rows.map((row) => JSON.stringify(row)).join('\n');
const base64 = RED.toString('base64');
const utf16 = (text: string, bigEndian = false) => {
  const bytes = Buffer.from(`\ufeff${text}`, 'utf16le');
  return bigEndian ? bytes.swap16() : bytes;
};

type Case = [what: string, files: Files, expected: (string | RegExp)[], path?: string];
const check = async (_: string, files: Files, expected: (string | RegExp)[], path = '') => {
  const found = await rowsOf(join(await folderOf(files), path));
  expect(found).toEqual(
    expected.map((row) => (typeof row === 'string' ? row : (expect.stringMatching(row) as string))),
  );
};

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
    ['text alone is refused', data(chat('What?', {})), [/^bad: expected an image path/]],
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

describe('questions and answers as downloaded', () => {
  const named = (name: string): Files => ({ [name]: RED });
  const cases: Case[] = [
    [
      'TextVQA',
      {
        'TextVQA_0.5.1_train.json': json({
          dataset_type: 'train',
          data: [{ question: 'What?', image_id: 'a1', answers: ['x', 'y'], set_name: 'train' }],
        }),
        ...named('train_images/a1.png'),
      },
      ['train: red: What? / x / y'],
    ],
    [
      'GQA',
      {
        'val_balanced_questions.json': json({
          '07': { question: 'Is it?', imageId: '23', answer: 'yes', annotations: {} },
        }),
        ...named('images/23.png'),
      },
      ['validation: red: Is it? / yes'],
    ],
    [
      'VQA-RAD',
      {
        'VQA_RAD Dataset Public.json': json([
          { qid: 0, phrase_type: 'freeform', image_name: 's.png', question: 'How many?', answer: 1 },
          { qid: 1, phrase_type: 'test_para', image_name: 's.png', question: 'Is it?', answer: true },
        ]),
        ...named('VQA_RAD Image Folder/s.png'),
      },
      ['train: red: How many? / 1', 'test: red: Is it? / true'],
    ],
    [
      'SLAKE',
      {
        'train.json': json([{ img_id: 1, img_name: 'xmlab1/source.png', question: 'What?', answer: 'MRI' }]),
        ...named('imgs/xmlab1/source.png'),
      },
      ['train: red: What? / MRI'],
    ],
    [
      'VQA-Med',
      { 'QA_train.txt': 'synpic41|what kind is it?|cta - ct\n', ...named('Train_images/synpic41.png') },
      ['train: red: what kind is it? / cta - ct'],
    ],
    [
      'DocVQA',
      {
        'train_v1.0.json': json({
          dataset_name: 'docvqa',
          data: [{ questionId: 1, question: 'What?', image: 'documents/a.png', answers: ['x'] }],
        }),
        ...named('documents/a.png'),
      },
      ['train: red: What? / x'],
    ],
    [
      'ChartQA',
      {
        'train/train_human.json': json([{ imgname: 'a.png', query: 'What?', label: '14' }]),
        ...named('train/png/a.png'),
      },
      ['train: red: What? / 14'],
    ],
    [
      'A-OKVQA',
      {
        'aokvqa_v1p0_train.json': json([
          {
            split: 'train',
            image_id: 51606,
            question: 'What?',
            choices: ['a', 'b'],
            correct_choice_idx: 1,
            direct_answers: ['b', 'c'],
          },
        ]),
        ...named('coco/train2017/000000051606.jpg'),
      },
      ['train: red: What? / b / c'],
    ],
    [
      'ScienceQA',
      {
        'problems.json': json({
          7: { question: 'What?', choices: ['a', 'b'], answer: 1, image: 'image.png', split: 'val' },
        }),
        ...named('images/val/7/image.png'),
      },
      ['validation: red: What? / b'],
    ],
    [
      'OCR-VQA',
      {
        'dataset.json': json({
          '012': {
            imageURL: 'http://x/012.png',
            questions: ['Who?', 'What?'],
            answers: ['me', 'x'],
            split: 'train',
          },
        }),
        ...named('images/012.png'),
      },
      ['train: red: Who? / me', 'train: red: What? / x'],
    ],
    [
      'Visual Genome',
      {
        'question_answers.json': json([
          { id: 1, qas: [{ image_id: 1, question: 'What?', answer: 'x', qa_id: 2 }] },
        ]),
        ...named('VG_100K/1.png'),
      },
      ['red: What? / x'],
    ],
    [
      'Visual7W',
      {
        'dataset_v7w.json': json({
          images: [
            {
              image_id: 1,
              filename: 'v7w_1.png',
              split: 'train',
              qa_pairs: [{ question: 'What?', answer: 'x' }],
            },
          ],
        }),
        ...named('images/v7w_1.png'),
      },
      ['train: red: What? / x'],
    ],
    [
      'CLEVR',
      {
        'CLEVR_train_questions.json': json({
          info: {},
          questions: [{ image_filename: 'c.png', question: 'How many?', answer: '2', split: 'train' }],
        }),
        ...named('images/train/c.png'),
      },
      ['train: red: How many? / 2'],
    ],
    [
      'TextCaps',
      {
        'TextCaps_0.1_train.json': json({
          data: [{ image_id: 'a1', caption_str: 'one', reference_strs: ['one', 'two'] }],
        }),
        ...named('train_images/a1.png'),
      },
      ['train: red: one'],
    ],
    [
      'nocaps',
      {
        'nocaps_val_4500_captions.json': json({
          images: [{ id: 0, file_name: '0013.png' }],
          annotations: [{ image_id: 0, id: 0, caption: 'one' }],
        }),
        ...named('images/0013.png'),
      },
      ['validation: red: one'],
    ],
    [
      'lists that datasets writes as records',
      {
        'x.jsonl': lines({
          image: 'a.png',
          question: 'What?',
          answers: { answer: ['x', 'y'], answer_id: [1, 2] },
        }),
        ...named('a.png'),
      },
      ['red: What? / x / y'],
    ],
    [
      'COCO with its other annotations',
      {
        'annotations/captions_val2017.json': json({
          images: [{ id: 1, file_name: '1.png' }],
          annotations: [{ image_id: 1, caption: 'one' }],
        }),
        'annotations/instances_val2017.json': json({ images: [], annotations: [] }),
        ...named('val2017/1.png'),
      },
      ['validation: red: one'],
    ],
    [
      'VQA with test questions without answers',
      {
        'v2_OpenEnded_mscoco_train2014_questions.json': json({
          data_subtype: 'train2014',
          questions: [{ image_id: 9, question: 'What?', question_id: 1 }],
        }),
        'v2_mscoco_train2014_annotations.json': json({
          annotations: [{ question_id: 1, answers: [{ answer: 'x' }] }],
        }),
        'v2_OpenEnded_mscoco_test2015_questions.json': json({
          data_subtype: 'test2015',
          questions: [{ image_id: 8, question: 'Who?', question_id: 2 }],
        }),
        ...named('train2014/COCO_train2014_000000000009.jpg'),
      },
      ['train: red: What? / x', /^test: bad: expected a file of annotations/],
    ],
  ];
  it.each(cases)('%s', check);
});

describe('where columns and pictures are', () => {
  const row = { img_pth: 'a.png', txt: 'a long text', n: 1 };
  const rows: Files = { 'x.jsonl': lines(row), 'a.png': RED };

  it('are told by the layout', async () => {
    const dir = await folderOf({
      'rows/x.jsonl': lines({ ...row, q: 'What?', a: 7 }),
      'elsewhere/deep/a.png': RED,
    });
    const names = { image_column: 'img_pth', image_folder: join(dir, 'elsewhere') };
    expect(await rowsOf(join(dir, 'rows'), { ...names, caption_column: 'txt' })).toEqual([
      'red: a long text',
    ]);
    expect(await rowsOf(join(dir, 'rows'), { ...names, question_column: 'q', answer_column: 'a' })).toEqual([
      'red: What? / 7',
    ]);
  });

  it('are suggested by an error', async () => {
    const dir = await folderOf(rows);
    expect((await rowsOf(dir)).join()).toMatch(
      /columns img_pth, txt, n; did you mean image_column: img_pth\?.*columns img_pth, txt, n; did you mean caption_column: txt\?/,
    );
    expect((await rowsOf(dir, { image_column: 'image' }))[0]).toMatch(
      /^bad: expected a column "image" \(image_column\), found columns img_pth, txt, n/,
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

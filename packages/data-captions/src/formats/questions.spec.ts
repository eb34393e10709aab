/** Data sets of questions and answers, as downloaded: docs/data.md lists them. */
import { describe, it } from 'vitest';
import type { Case, Files } from '../../spec/data-folder';
import { check, json, lines, RED } from '../../spec/data-folder';

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
      'letters of choices, in a list and by name',
      {
        'x.jsonl': lines(
          { image: 'a.png', question: 'What?', choices: ['a dog', 'a cat'], answer: 'B' },
          { image: 'a.png', question: 'What?', options: { A: 'a dog', B: 'a cat' }, answer: 'A' },
          { image: 'a.png', question: 'Which vitamin?', choices: ['A', 'C'], answer: 'C' },
        ),
        'a.png': RED,
      },
      ['red: What? / a cat', 'red: What? / a dog', 'red: Which vitamin? / C'],
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

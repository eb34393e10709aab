/** Options and names of models that are refused. */
import { describe } from 'vitest';
import type { Refused } from '../spec/app';
import { testedApp, testRefused } from '../spec/app';
import { upload } from '../spec/attacks';
import { chatBody, DATA_URL, json, PICTURE } from '../spec/testing';

const app = testedApp();

describe('is refused:', () => {
  testRefused(app, [
    ['a model that is a prototype', '/v1/chat/completions', json(chatBody({ model: '__proto__' })), {}, 404],
    ['too many beams', '/caption?num_beams=17&max_new_tokens=2', upload(PICTURE), {}, 400],
    ['more beams than the app allows', '/caption?num_beams=3', upload(PICTURE), { max_beams: 2 }, 400],
    ['too many tokens', '/caption', json({ image: DATA_URL, max_new_tokens: 3 }), { max_tokens: 2 }, 400],
    ['a temperature below 0', '/v1/chat/completions', json(chatBody({ temperature: -1 })), {}, 400],
    ['a field that is mistyped', '/caption?max_new_token=3', upload(PICTURE), {}, 400],
    ['a question for a caption', '/caption', json({ image: DATA_URL, question: 'a' }), {}, 400],
    ['a flag that is none', '/caption?do_sample=maybe', upload(PICTURE), {}, 400],
    ...Object.entries({
      ...{ stream: 'yes', logprobs: 1, stream_options: { include_usage: 'x' }, tools: { a: 1 }, n: 0 },
      ...{ functions: [{}], logit_bias: { 5: 1 }, response_format: { type: 'json_object' } },
    }).map(([name, value]): Refused => [
      `${name} ${JSON.stringify(value)}`,
      '/v1/chat/completions',
      json(chatBody({ [name]: value })),
      {},
      400,
    ]),
    ['a model that is a path', '/v1/models/..%2f..%2fetc%2fpasswd', {}, {}, 404],
    ['a model whose name cannot be decoded', '/v1/models/%E0%A4%A', {}, {}, 404],
    [
      'a question of very many characters',
      '/answer',
      json({ image: DATA_URL, question: 'a '.repeat(200_000) }),
      {},
      400,
    ],
    [
      'very many stop strings',
      '/v1/chat/completions',
      json(chatBody({ stop: Array(1000).fill('a') })),
      {},
      400,
    ],
    ['a long stop string', '/v1/chat/completions', json(chatBody({ stop: 'a'.repeat(1000) })), {}, 400],
    [
      'more likely tokens than 20',
      '/v1/chat/completions',
      json(chatBody({ logprobs: true, top_logprobs: 21 })),
      {},
      400,
    ],
    ['likely tokens without logprobs', '/v1/chat/completions', json(chatBody({ top_logprobs: 2 })), {}, 400],
    ...[0, -1, 1.5, 1e300].map((n): Refused => [
      `${n} tokens`,
      '/v1/chat/completions',
      json(chatBody({ max_tokens: n })),
      {},
      400,
    ]),
  ]);
});

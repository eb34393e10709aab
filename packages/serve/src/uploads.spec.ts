/** Pictures, forms and JSON that are too large, damaged or meant to do harm. */
import { describe, expect, it } from 'vitest';
import { testedApp, testRefused } from '../spec/app';
import { bomb, gif, parts, SVG, upload, webp } from '../spec/attacks';
import { DATA_URL, json, openCaptioner, PICTURE } from '../spec/testing';
import { createApp } from './index';

const app = testedApp();

describe('is refused:', () => {
  testRefused(app, [
    ['a body that is too large', '/caption', upload(new Uint8Array(2000)), { max_body: 1000 }, 413],
    ['more uploads than there is memory for', '/caption', upload(PICTURE), { max_bodies: 10 }, 429],
    ['an empty body', '/caption', { method: 'POST' }, {}, 400],
    ['text as a picture', '/caption', upload(new Uint8Array(Buffer.from('<svg onload=alert(1)>'))), {}, 400],
    ['a picture that is cut off', '/caption', upload(PICTURE.slice(0, 80)), {}, 400],
    ['a decompression bomb', '/caption', upload(bomb(12_000, 12_000)), {}, 400],
    ['a picture of no size', '/caption', upload(bomb(0, 0)), {}, 400],
    ['a damaged form', '/caption', upload(PICTURE, 'multipart/form-data; boundary=x'), {}, 400],
    ['a form without a boundary', '/caption', upload(PICTURE, 'multipart/form-data'), {}, 400],
    ['text that is no JSON', '/v1/chat/completions', { ...json({}), body: '{' }, {}, 400],
    ['a JSON list', '/v1/chat/completions', json([]), {}, 400],
    [
      'JSON of the wrong types',
      '/v1/chat/completions',
      json({ model: 'tiny', messages: [{ role: 'user', content: 5 }] }),
      {},
      400,
    ],
    ['a path in JSON', '/caption', json({ image: '../../models/x.png' }), {}, 400],
    [
      'JSON that is nested deeply',
      '/v1/chat/completions',
      { ...json({}), body: '['.repeat(500_000) },
      {},
      400,
    ],
    [
      'an option that is nested deeply',
      '/caption',
      { ...json({}), body: `{"image":"AAAA","temperature":${'['.repeat(100_000)}${']'.repeat(100_000)}}` },
      {},
      400,
    ],
    ['JSON of very many parts', '/caption', { ...json({}), body: `[${'[],'.repeat(500_000)}0]` }, {}, 400],
    ['JSON of very many texts', '/caption', { ...json({}), body: `["${'\\"'.repeat(300_000)}"]` }, {}, 400],
    [
      'JSON that is no UTF-8',
      '/caption',
      { ...json({}), body: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]) },
      {},
      400,
    ],
    [
      'a form of very many parts',
      '/caption',
      upload(parts(5000), 'multipart/form-data; boundary=x'),
      {},
      400,
    ],
    [
      'a form of two files',
      '/caption',
      upload(parts(2, '; filename="a"'), 'multipart/form-data; boundary=x'),
      {},
      400,
    ],
    ['a form without a file', '/caption', upload(parts(2), 'multipart/form-data; boundary=x'), {}, 400],
    ['base64 of other characters', '/caption', json({ image: `${'A'.repeat(40)}*` }), {}, 400],
    ['an SVG with a script', '/caption', upload(new Uint8Array(Buffer.from(SVG)), 'image/svg+xml'), {}, 400],
    [
      'an SVG in a form',
      '/caption',
      upload(parts(1, '; filename="a.png"', SVG), 'multipart/form-data; boundary=x'),
      {},
      400,
    ],
    ['a GIF of huge size', '/caption', upload(gif(65_535, 65_535)), {}, 400],
    ['a WebP of huge size', '/caption', upload(webp(16_383, 16_383)), {}, 400],
  ]);

  it('a body without a length, as soon as it is too large', async () => {
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += 1000;
        controller.enqueue(new Uint8Array(1000));
      },
    });
    const response = await app.ask('/caption', { method: 'POST', body, duplex: 'half' } as RequestInit, {
      max_body: 5000,
    });
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(20_000);
  });

  it('requests for which the queue has no place, with the time to wait', async () => {
    await using small = await openCaptioner({ max_batch: 1, max_queue: 1 });
    const served = createApp(small);
    const body = () => json({ image: DATA_URL, max_new_tokens: 40, min_new_tokens: 40 });
    const all = await Promise.all(
      Array.from({ length: 12 }, () => served.fetch(new Request('http://localhost/caption', body()))),
    );
    const statuses = all.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(1);
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThanOrEqual(9);
    expect(all.find(({ status }) => status === 429)!.headers.get('retry-after')).toBe('2');
  });
});

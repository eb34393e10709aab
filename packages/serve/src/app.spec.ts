/** The paths of the app. */
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { testedApp } from '../spec/app';
import { DATA_URL, json, PICTURE } from '../spec/testing';
import { createApp } from './index';
import { logprobsOf } from './logprobs';
import { beforeStop } from './stop';

const tested = testedApp();
const { ask } = tested;

describe('the app', () => {
  it('takes a picture as the body, as a form, and in JSON', async () => {
    const { text } = await tested.captioner.caption(PICTURE, { max_new_tokens: 5 });
    const form = new FormData();
    form.set('image', new Blob([PICTURE]), '../../etc/passwd');
    form.set('max_new_tokens', '5');
    const bodies: [string, RequestInit][] = [
      [
        '/caption?max_new_tokens=5',
        { method: 'POST', body: PICTURE, headers: { 'content-type': 'text/html' } },
      ],
      ['/caption', { method: 'POST', body: form }],
      ['/caption', json({ image: DATA_URL, max_new_tokens: 5 })],
      [
        '/caption',
        json({ image: Buffer.from(PICTURE).toString('base64'), max_new_tokens: 5, model: 'tiny' }),
      ],
    ];
    for (const [path, init] of bodies) {
      const response = await ask(path, init);
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ model: 'tiny', text });
      expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
    }
    const answer = await ask('/answer', json({ image: DATA_URL, question: 'a', max_new_tokens: 5 }));
    expect(await answer.json()).toMatchObject({
      text: (await tested.captioner.answer(PICTURE, 'a', { max_new_tokens: 5 })).text,
    });
    expect((await ask('/answer', json({ image: DATA_URL }))).status).toBe(400);
  });

  it('reports health, readiness and figures', async () => {
    expect((await ask('/healthz')).status).toBe(200);
    expect((await ask('/readyz')).status).toBe(200);
    expect((await ask('/readyz', {}, { isDraining: () => true })).status).toBe(503);
    const app = createApp(tested.captioner);
    await app.fetch(new Request('http://localhost/no/such'));
    await app.fetch(new Request('http://localhost/healthz'));
    const text = await (await app.fetch(new Request('http://localhost/metrics'))).text();
    expect(text).toMatch(/blip2_http_requests_total\{route="other",status="404"\} 1/);
    expect(text).toMatch(/blip2_http_requests_total\{route="\/healthz",status="200"\} 1/);
  });

  it('counts tokens of every request in a counter, those of beam search too', async () => {
    const tokens = async () => {
      const text = await (await ask('/metrics')).text();
      expect(text).toMatch(/^# TYPE blip2_worker_restarts_total counter$/m);
      expect(text).toMatch(/^# TYPE blip2_tokens_total counter$/m);
      return Number(/^blip2_tokens_total (\d+)$/m.exec(text)![1]);
    };
    const before = await tokens();
    for (const num_beams of [1, 2])
      await tested.captioner.caption(PICTURE, { max_new_tokens: 5, min_new_tokens: 5, num_beams });
    expect((await tokens()) - before).toBe(10);
  });

  it('reads one frame of a moving picture, and takes base64 with line breaks and in the alphabet of addresses', async () => {
    const frames = await sharp(Buffer.concat([0, 90, 200].map((value) => Buffer.alloc(300, value))), {
      raw: { width: 10, height: 30, channels: 3, pageHeight: 10 },
    })
      .gif()
      .toBuffer();
    const first = await sharp(frames).png().toBuffer();
    const captions = [frames, first].map(async (body) => {
      const response = await ask('/caption?max_new_tokens=4', { method: 'POST', body: new Uint8Array(body) });
      return ((await response.json()) as { text?: string }).text;
    });
    expect(await captions[0]).toBe(await captions[1]);
    const base64 = Buffer.from(PICTURE).toString('base64');
    const images = [base64.replace(/(.{76})/g, '$1\r\n'), Buffer.from(PICTURE).toString('base64url')];
    for (const image of images)
      expect((await ask('/caption', json({ image, max_new_tokens: 2 }))).status).toBe(200);
  });

  it('writes a finite logarithm for a probability of 0, since JSON has no other', () => {
    const { content } = logprobsOf([{ id: 1, text: 'a', probability: 0 }]);
    expect(content[0].logprob).toBe(-9999);
  });

  it('cuts texts before a stop string, and holds back what may become one', () => {
    expect(beforeStop('a dog. b', ['. '])).toBe('a dog');
    expect(beforeStop('a dog.', ['. '])).toBe('a dog.');
    expect(beforeStop('a dog.', ['. '], true)).toBe('a dog');
    expect(beforeStop('a dog', [], true)).toBe('a dog');
  });
});

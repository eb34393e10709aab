/** The paths of the app, and requests that it refuses. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Captioner } from '@blip2/captioner';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chatBody, DATA_URL, json, openCaptioner, PICTURE } from '../spec/testing';
import { logprobsOf } from './logprobs';
import { createApp } from './index';
import type { AppOptions } from './index';
import { fetchPicture, isPrivate } from './remote';
import { beforeStop } from './stop';

let captioner: Captioner;
beforeAll(async () => void (captioner = await openCaptioner({ max_pixels: 1_000_000 })));
afterAll(() => captioner.close());

const ask = async (path: string, init: RequestInit = {}, options: AppOptions = {}) => {
  const url = path.startsWith('http') ? path : `http://localhost${path}`;
  return createApp(captioner, options).fetch(new Request(url, init));
};
const errorOf = async (response: Response) =>
  ((await response.json()) as { error: { message: string; code: string } }).error;

describe('the app', () => {
  it('takes a picture as the body, as a form, and in JSON', async () => {
    const { text } = await captioner.caption(PICTURE, { max_new_tokens: 5 });
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
      text: (await captioner.answer(PICTURE, 'a', { max_new_tokens: 5 })).text,
    });
    expect((await ask('/answer', json({ image: DATA_URL }))).status).toBe(400);
  });

  it('reports health, readiness and figures', async () => {
    expect((await ask('/healthz')).status).toBe(200);
    expect((await ask('/readyz')).status).toBe(200);
    expect((await ask('/readyz', {}, { isDraining: () => true })).status).toBe(503);
    const app = createApp(captioner);
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
      await captioner.caption(PICTURE, { max_new_tokens: 5, min_new_tokens: 5, num_beams });
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

const bomb = (width: number, height: number) => {
  const header = Buffer.from(PICTURE);
  header.writeUInt32BE(width, 16);
  header.writeUInt32BE(height, 20);
  return new Uint8Array(header);
};
const upload = (body: Uint8Array<ArrayBuffer>, type = 'image/png'): RequestInit => ({
  method: 'POST',
  body,
  headers: { 'content-type': type },
});
const withUrl = (url: string) =>
  json(chatBody({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }] }));

/** Names that are not this machine's, or are written so that a reader may take them for it. */
const HOSTS = [
  ...[
    'evil.example:8000',
    'localhost.evil.example',
    'localhost.',
    'localhost:8000:80',
    'localhost:port',
    'localhost/x',
  ],
  ...[
    '127.1',
    '0x7f.0.0.1',
    '2130706433',
    '0.0.0.0',
    '127.0.0.1.nip.io',
    '[::ffff:127.0.0.1]',
    '[::]',
    '[fe80::1]',
  ],
  ...['::1', '[::1', 'localhost@evil.example', 'evil.example#localhost', 'localhost\\evil.example'],
];

const SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>';

/** A form of so many parts. */
const parts = (count: number, more = '', content = 'a') =>
  new Uint8Array(
    Buffer.from(
      `${`--x\r\nContent-Disposition: form-data; name="a"${more}\r\n\r\n${content}\r\n`.repeat(count)}--x--\r\n`,
    ),
  );

/** Beginnings of pictures that claim to be huge. */
function gif(width: number, height: number): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.from(
    'GIF89a\0\0\0\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\0\0\0\0\0\x02\x02D\x01\0;',
    'latin1',
  );
  for (const at of [6, 24]) {
    bytes.writeUInt16LE(width, at);
    bytes.writeUInt16LE(height, at + 2);
  }
  return new Uint8Array(bytes);
}
function webp(width: number, height: number): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.alloc(30);
  bytes.write('RIFF');
  bytes.writeUInt32LE(22, 4);
  bytes.write('WEBPVP8X', 8);
  bytes.writeUInt32LE(10, 16);
  bytes.writeUIntLE(width - 1, 24, 3);
  bytes.writeUIntLE(height - 1, 27, 3);
  return new Uint8Array(bytes);
}

type Case = [string, string, RequestInit, AppOptions, number];

describe('is refused:', () => {
  const cases: Case[] = [
    ['a foreign Host', '/v1/models', { headers: { host: 'evil.example' } }, {}, 421],
    [
      'a Host that looks like loopback',
      '/v1/models',
      { headers: { host: '127.0.0.1.evil.example' } },
      {},
      421,
    ],
    ['a Host with a user', '/v1/models', { headers: { host: 'x@localhost' } }, {}, 421],
    [
      'a Host that is not listed',
      '/v1/models',
      { headers: { host: 'localhost' } },
      { hosts: ['a.example'] },
      421,
    ],
    [
      'a foreign Origin',
      '/caption',
      { ...upload(PICTURE), headers: { origin: 'https://evil.example' } },
      {},
      403,
    ],
    ['the Origin null', '/caption', { ...upload(PICTURE), headers: { origin: 'null' } }, {}, 403],
    ['a missing token', '/v1/models', {}, { token: 'x' }, 401],
    [
      'a wrong token',
      '/caption',
      { ...upload(PICTURE), headers: { authorization: 'Bearer y' } },
      { token: 'x' },
      401,
    ],
    ['a token in another scheme', '/metrics', { headers: { authorization: 'Basic x' } }, { token: 'x' }, 401],
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
    ['a model that is a prototype', '/v1/chat/completions', json(chatBody({ model: '__proto__' })), {}, 404],
    ['a path as the picture', '/v1/chat/completions', withUrl('/etc/passwd'), {}, 400],
    ['a file: URL', '/v1/chat/completions', withUrl('file:///etc/passwd'), {}, 400],
    ['a path in JSON', '/caption', json({ image: '../../models/x.png' }), {}, 400],
    ['a host that is not allowed', '/v1/chat/completions', withUrl('https://example.com/a.png'), {}, 400],
    [
      'another host that begins alike',
      '/v1/chat/completions',
      withUrl('https://a.example.evil.test/x'),
      { image_hosts: ['a.example'] },
      400,
    ],
    [
      'a user in the address',
      '/v1/chat/completions',
      withUrl('https://a.example@evil.test/x'),
      { image_hosts: ['a.example'] },
      400,
    ],
    [
      'another port of an allowed host',
      '/v1/chat/completions',
      withUrl('https://a.example:22/x'),
      { image_hosts: ['a.example'] },
      400,
    ],
    [
      'a name that leads to this machine',
      '/v1/chat/completions',
      withUrl('https://localhost/x'),
      { image_hosts: ['localhost'] },
      400,
    ],
    [
      'an address of this machine',
      '/v1/chat/completions',
      withUrl('https://127.0.0.1/x'),
      { image_hosts: ['127.0.0.1'] },
      400,
    ],
    [
      'an address in other digits',
      '/v1/chat/completions',
      withUrl('https://0x7f.1/x'),
      { image_hosts: ['127.0.0.1'] },
      400,
    ],
    [
      'an address of the cloud',
      '/v1/chat/completions',
      withUrl('http://169.254.169.254/x'),
      { image_hosts: ['http://169.254.169.254'] },
      400,
    ],
    [
      'a picture of another host for which there is no memory',
      '/v1/chat/completions',
      withUrl('https://localhost/x'),
      { image_hosts: ['localhost'], max_body: 5000, max_bodies: 7000 },
      429,
    ],
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
    }).map(([name, value]): Case => [
      `${name} ${JSON.stringify(value)}`,
      '/v1/chat/completions',
      json(chatBody({ [name]: value })),
      {},
      400,
    ]),
    ['an unknown path', '/../../etc/passwd', {}, {}, 404],
    ...HOSTS.map((host): Case => [`the Host ${host}`, '/v1/models', { headers: { host } }, {}, 421]),
    ...[
      '/..%2f..%2fetc%2fpasswd',
      '/%252e%252e%252fetc',
      '/a%00b',
      '/%',
      '/%c0%ae',
      '/..%5c..%5cx',
      '/C:%5cx',
      '//etc',
    ].map((path): Case => [`the path ${path}`, `http://localhost${path}`, {}, {}, 404]),
    ['a model that is a path', '/v1/models/..%2f..%2fetc%2fpasswd', {}, {}, 404],
    ['a model whose name cannot be decoded', '/v1/models/%E0%A4%A', {}, {}, 404],
    [
      'a name that a proxy was asked for',
      '/v1/models',
      { headers: { host: 'evil.example', 'x-forwarded-host': 'localhost', forwarded: 'host=localhost' } },
      {},
      421,
    ],
    [
      'an Origin of another port',
      '/caption',
      { ...upload(PICTURE), headers: { host: 'localhost:1', origin: 'http://localhost:2' } },
      {},
      403,
    ],
    [
      'an Origin of another protocol',
      '/caption',
      { ...upload(PICTURE), headers: { origin: 'https://localhost' } },
      {},
      403,
    ],
    [
      'a picture that a page of another site asks for',
      '/v1/models',
      { headers: { 'sec-fetch-site': 'cross-site' } },
      {},
      403,
    ],
    ['a token in the address', '/v1/models?token=x&authorization=Bearer%20x', {}, { token: 'x' }, 401],
    [
      'a token that begins alike',
      '/v1/models',
      { headers: { authorization: 'Bearer xx' } },
      { token: 'x' },
      401,
    ],
    ['an empty token', '/v1/models', { headers: { authorization: 'Bearer ' } }, { token: 'x' }, 401],
    ...(['DELETE', 'PUT', 'PATCH', 'OPTIONS'] as const).map((method): Case => [
      `${method} of a path`,
      '/caption',
      { method },
      {},
      405,
    ]),
    ['GET of a path that takes pictures', '/caption', {}, {}, 405],
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
    [
      'a data URL of text',
      '/v1/chat/completions',
      withUrl('data:text/html,<script>alert(1)</script>'),
      {},
      400,
    ],
    ['a javascript: URL', '/v1/chat/completions', withUrl('javascript:alert(1)'), {}, 400],
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
    ...[0, -1, 1.5, 1e300].map((n): Case => [
      `${n} tokens`,
      '/v1/chat/completions',
      json(chatBody({ max_tokens: n })),
      {},
      400,
    ]),
  ];
  it.each(cases)('%s', async (_, path, init, options, status) => {
    const response = await ask(path, init, options);
    expect(response.status).toBe(status);
    expect((await errorOf(response)).message).not.toMatch(/node_modules|\.[jt]s:/);
    if (status === 429) expect(response.headers.get('retry-after')).toBe('2');
    expect((await ask('/healthz')).status).toBe(200);
  });

  it('a body without a length, as soon as it is too large', async () => {
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += 1000;
        controller.enqueue(new Uint8Array(1000));
      },
    });
    const response = await ask('/caption', { method: 'POST', body, duplex: 'half' } as RequestInit, {
      max_body: 5000,
    });
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(20_000);
  });

  it('requests for which the queue has no place, with the time to wait', async () => {
    await using small = await openCaptioner({ max_batch: 1, max_queue: 1 });
    const app = createApp(small);
    const body = () => json({ image: DATA_URL, max_new_tokens: 40, min_new_tokens: 40 });
    const all = await Promise.all(
      Array.from({ length: 12 }, () => app.fetch(new Request('http://localhost/caption', body()))),
    );
    const statuses = all.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(1);
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThanOrEqual(9);
    expect(all.find(({ status }) => status === 429)!.headers.get('retry-after')).toBe('2');
  });
});

describe('pages of other origins', () => {
  it('may ask if they are listed', async () => {
    const origins = ['https://a.example'];
    const allowed = await ask('/v1/models', { headers: { origin: origins[0] } }, { origins });
    expect(allowed.headers.get('access-control-allow-origin')).toBe(origins[0]);
    const other = await ask('/v1/models', { headers: { origin: 'https://b.example' } }, { origins });
    expect([other.status, other.headers.get('access-control-allow-origin')]).toEqual([403, null]);
  });
});

describe('pictures of other hosts', () => {
  it.each([
    ...[
      '127.0.0.1',
      '10.1.2.3',
      '172.31.0.1',
      '192.168.0.1',
      '169.254.169.254',
      '100.64.0.1',
      '0.0.0.0',
      '224.0.0.1',
    ],
    ...[
      '::1',
      '::',
      'fe80::1',
      'fd00::1',
      '::ffff:127.0.0.1',
      '::ffff:8.8.8.8',
      '64:ff9b::7f00:1',
      '2002:7f00:1::',
      '2001::1',
    ],
  ])('%s is no public address', (address) => expect(isPrivate(address)).toBe(true));
  it.each(['8.8.8.8', '1.1.1.1', '2606:4700::1111'])('%s is public', (address) =>
    expect(isPrivate(address)).toBe(false),
  );

  it('need memory only while their request is under way', async () => {
    const app = createApp(captioner, { image_hosts: ['localhost'], max_body: 5000, max_bodies: 10_000 });
    for (let i = 0; i < 3; i++) {
      const request = new Request('http://localhost/v1/chat/completions', withUrl('https://localhost/x'));
      expect((await app.fetch(request)).status).toBe(400); // a private address
    }
  });

  it('are fetched if the host is allowed, within limits and without redirects', async () => {
    const asked: string[] = [];
    const images = createServer((request, response) => {
      asked.push(request.url!);
      if (request.url === '/moved') response.writeHead(302, { location: '/a.png' }).end();
      else if (request.url === '/slow') response.write('x');
      else response.end(request.url === '/large' ? Buffer.alloc(10_000) : PICTURE);
    });
    await new Promise<void>((resolve) => void images.listen(0, '127.0.0.1', () => resolve()));
    const origin = `http://localhost:${(images.address() as AddressInfo).port}`;
    const reserved: number[] = [];
    const o = {
      ...{ hosts: [origin], max_bytes: 5000, time_limit_ms: 300, isForbidden: () => false },
      reserve: (bytes: number) => void reserved.push(bytes),
    };
    const { signal } = new AbortController();
    expect(await fetchPicture(`${origin}/a.png`, o, signal)).toEqual(Buffer.from(PICTURE));
    expect(reserved).toEqual([5000]);
    await expect(fetchPicture(`${origin}/moved`, o, signal)).rejects.toThrow(
      'expected status 200, found 302',
    );
    await expect(fetchPicture(`${origin}/large`, o, signal)).rejects.toMatchObject({ status: 413 });
    await expect(fetchPicture(`${origin}/slow`, o, signal)).rejects.toThrow('cannot be fetched');
    const before = asked.length;
    const strict = { ...o, isForbidden: undefined };
    await expect(fetchPicture(`${origin}/a.png`, strict, signal)).rejects.toThrow('private address');
    expect(asked.length).toBe(before); // nothing was sent
    images.closeAllConnections();
    images.close();
  });
});

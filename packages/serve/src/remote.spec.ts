/** Pictures that a request names by an address. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { testedApp, testRefused } from '../spec/app';
import { withUrl } from '../spec/attacks';
import { PICTURE } from '../spec/testing';
import { createApp } from './index';
import { fetchPicture, isPrivate } from './remote';

const app = testedApp();

describe('is refused:', () => {
  testRefused(app, [
    ['a path as the picture', '/v1/chat/completions', withUrl('/etc/passwd'), {}, 400],
    ['a file: URL', '/v1/chat/completions', withUrl('file:///etc/passwd'), {}, 400],
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
    [
      'a data URL of text',
      '/v1/chat/completions',
      withUrl('data:text/html,<script>alert(1)</script>'),
      {},
      400,
    ],
    ['a javascript: URL', '/v1/chat/completions', withUrl('javascript:alert(1)'), {}, 400],
  ]);
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
    const limited = createApp(app.captioner, {
      image_hosts: ['localhost'],
      max_body: 5000,
      max_bodies: 10_000,
    });
    for (let i = 0; i < 3; i++) {
      const request = new Request('http://localhost/v1/chat/completions', withUrl('https://localhost/x'));
      expect((await limited.fetch(request)).status).toBe(400); // a private address
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

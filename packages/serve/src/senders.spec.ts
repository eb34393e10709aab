/** Who may ask, and for which paths. */
import { describe, expect, it } from 'vitest';
import type { Refused } from '../spec/app';
import { testedApp, testRefused } from '../spec/app';
import { upload } from '../spec/attacks';
import { PICTURE } from '../spec/testing';

const app = testedApp();

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

describe('is refused:', () => {
  testRefused(app, [
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
    ['an unknown path', '/../../etc/passwd', {}, {}, 404],
    ...HOSTS.map((host): Refused => [`the Host ${host}`, '/v1/models', { headers: { host } }, {}, 421]),
    ...[
      '/..%2f..%2fetc%2fpasswd',
      '/%252e%252e%252fetc',
      '/a%00b',
      '/%',
      '/%c0%ae',
      '/..%5c..%5cx',
      '/C:%5cx',
      '//etc',
    ].map((path): Refused => [`the path ${path}`, `http://localhost${path}`, {}, {}, 404]),
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
    ...(['DELETE', 'PUT', 'PATCH', 'OPTIONS'] as const).map((method): Refused => [
      `${method} of a path`,
      '/caption',
      { method },
      {},
      405,
    ]),
    ['GET of a path that takes pictures', '/caption', {}, {}, 405],
  ]);
});

describe('pages of other origins', () => {
  it('may ask if they are listed', async () => {
    const origins = ['https://a.example'];
    const allowed = await app.ask('/v1/models', { headers: { origin: origins[0] } }, { origins });
    expect(allowed.headers.get('access-control-allow-origin')).toBe(origins[0]);
    const other = await app.ask('/v1/models', { headers: { origin: 'https://b.example' } }, { origins });
    expect([other.status, other.headers.get('access-control-allow-origin')]).toEqual([403, null]);
  });
});

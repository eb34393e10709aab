/** Requests that must be refused, each with a clear status, and the server goes on. */
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { copyFile, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Client } from '../spec/studio';
import { client, tinyFolder } from '../spec/studio';
import type { DataPage, Listing } from './api';
import { openFolders } from './folders';
import { pathOf } from './settings';

let studio: Client;
let root: string;
let outside: string;
beforeAll(async () => {
  ({ root, outside } = await tinyFolder());
  studio = await client(root, [process.execPath, '-e', '']);
});
afterAll(() => studio.studio.close());
afterEach(async () => {
  expect((await studio.get('/api/studio')).status).toBe(200);
});

/** A request whose Host and other headers are free to choose. */
function raw(path: string, headers: Record<string, string>): Promise<number> {
  const { port } = new URL(studio.origin);
  return new Promise((resolve, reject) => {
    const made = request({ host: '127.0.0.1', port, path, headers, setHost: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode!);
    });
    made.on('error', reject);
    made.end();
  });
}

/** The answer to a request of which only the beginning of the body is sent. */
function begun(path: string, bytes: number): Promise<string> {
  const { host, port } = new URL(studio.origin);
  const socket = connect(Number(port), '127.0.0.1');
  const head = [
    `POST ${path} HTTP/1.1`,
    `host: ${host}`,
    `cookie: ${studio.cookie}`,
    `x-studio-token: ${studio.token}`,
  ];
  socket.write([...head, `content-length: ${bytes}`, '', 'x'].join('\r\n'));
  return new Promise((resolve, reject) => {
    socket.once('data', (data) => {
      resolve(data.toString().split('\r\n')[0]);
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

describe('who may use it', () => {
  it('refuses other names that lead here, as in DNS rebinding', async () => {
    const names = [
      'evil.example',
      'evil.example:4242',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '',
    ];
    const likeness = [
      'localhost.',
      'x@localhost',
      '0.0.0.0',
      '127.1',
      '2130706433',
      '[::]',
      '::1',
      'localhost:1:2',
    ];
    for (const host of names) expect(await raw('/', { host }), host).toBe(403);
    for (const host of likeness) expect([400, 403], host).toContain(await raw('/', { host }));
    expect(await raw('/', { host: 'evil.example', 'x-forwarded-host': 'localhost' })).toBe(403);
    expect(await raw('/', { host: 'localhost:1' })).toBe(401);
  });

  it('refuses everything without a session, and with a wrong one', async () => {
    for (const path of ['/', '/assets/a.js', '/api/studio', '/api/files'])
      expect((await fetch(studio.origin + path)).status, path).toBe(401);
    const { port } = new URL(studio.origin);
    const cookie = `studio-${port}=${'x'.repeat(32)}`;
    expect((await fetch(studio.origin, { headers: { cookie } })).status).toBe(401);
    expect((await fetch(`${studio.origin}/?session=wrong`)).status).toBe(403);
  });

  it('refuses changes from other sites, and without the token of the page', async () => {
    const token = { 'x-studio-token': studio.token };
    const change = (headers: Record<string, string>) => studio.post('/api/runs/x/stop', {}, headers);
    expect((await change({})).status).toBe(403);
    expect((await change({ 'x-studio-token': 'wrong' })).status).toBe(403);
    expect((await change({ ...token, origin: 'http://evil.example' })).status).toBe(403);
    expect((await change({ ...token, origin: 'null' })).status).toBe(403);
    expect((await change({ ...token, 'sec-fetch-site': 'cross-site' })).status).toBe(403);
    expect((await change(token)).status).toBe(422); // there is no such run, so the request itself was accepted
    expect((await studio.get('/api/studio', { headers: { origin: 'http://evil.example' } })).status).toBe(
      403,
    );
  });

  it('sends a policy without inline script, and that no other page may frame it', async () => {
    const { headers } = await studio.get('/');
    const policy = headers.get('content-security-policy')!;
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain('unsafe');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('cross-origin-resource-policy')).toBe('same-origin');
    const report = (await studio.get('/api/runs/x/report')).headers;
    expect(report.get('content-security-policy')).toBe(
      "sandbox allow-scripts allow-popups; frame-ancestors 'self'",
    );
  });
});

describe('paths', () => {
  it.each([
    ...[
      '..',
      '../outside',
      '/',
      '/etc',
      '../../../../etc/passwd',
      '..\\..',
      'data/../../outside',
      'C:\\Windows',
    ],
    ...['\\\\host\\share', '%2e%2e', 'file:///etc/passwd', '~', '/proc/self/environ', `${'a/'.repeat(4000)}`],
  ])('refuses %s', async (path) => {
    for (const address of ['files', 'data', 'data/preview', 'data/picture']) {
      const answer = await studio.get(`/api/${address}?path=${encodeURIComponent(path)}`);
      expect([400, 403, 404], address).toContain(answer.status);
    }
  });

  it('does not tell whether something outside is there', async () => {
    const text = async (path: string) =>
      (await studio.get(`/api/files?path=${encodeURIComponent(path)}`)).text();
    const [there, gone] = [await text(outside), await text(`${outside}-gone`)];
    expect(there.replace(outside, 'X')).toBe(gone.replace(`${outside}-gone`, 'X'));
  });

  it('refuses zero bytes, names of runs that are paths, and files beside the page', async () => {
    expect((await studio.get('/api/files?path=a%00b')).status).toBe(400);
    for (const name of ['..', '.', '%2e%2e%2foutside', 'a%2fb', '..%5c..', ''])
      for (const what of ['report', 'events', 'picture'])
        expect([400, 404], name).toContain((await studio.get(`/api/runs/${name}/${what}`)).status);
    for (const path of [
      '/..%2f..%2fetc/passwd',
      '/%252e%252e/x',
      '/%',
      '/%c0%ae%c0%ae/x',
      '/C:%5cx',
      '/a%00b',
    ])
      expect((await studio.get(path)).status, path).toBe(404);
    for (const name of ['..%2findex.html', '%2e%2e/index.html', 'a.js%00', '.env'])
      expect((await studio.get(`/assets/${name}`)).status, name).toBe(404);
  });

  it('follows no symbolic link of runs that leads outside', async () => {
    const made = join(root, 'runs', 'made');
    await mkdir(made);
    await writeFile(join(outside, 'config.yaml'), 'preset: secret\n');
    await writeFile(join(outside, 'metrics.jsonl'), '{"step":1}\n');
    await writeFile(
      join(outside, 'training-samples.jsonl'),
      JSON.stringify({ step: 0, image: join(root, 'data', 'red.png') }) + '\n',
    );
    await symlink(outside, join(root, 'runs', 'linked'));
    await symlink(join(root, 'gone'), join(made, 'a'));
    for (const name of ['config.yaml', 'metrics.jsonl', 'training-samples.jsonl'])
      await symlink(join(outside, name), join(made, name));
    const status = async (path: string) => {
      const answer = await studio.get(path);
      await answer.body!.cancel();
      return answer.status;
    };
    for (const name of ['linked', 'made']) {
      for (const what of ['events', 'picture?index=0&side=128', 'report'])
        expect(await status(`/api/runs/${name}/${what}`), `${name} ${what}`).toBe(403);
      expect((await studio.post(`/api/runs/${name}/resume`, {})).status).toBe(403);
      expect((await studio.post(`/api/try?run=${name}`, 'x')).status).toBe(403);
    }
    expect(await (await studio.get('/api/runs')).text()).not.toContain('secret');
    await rm(join(root, 'runs'), { recursive: true });
  });

  it('takes no folder outside for the name of a model on the hub', async () => {
    await mkdir(join(outside, 'model'));
    await symlink(outside, join(root, 'away'));
    const folders = await openFolders([root]);
    await expect(pathOf('away/model', folders)).rejects.toThrow('is outside of the folders');
    const here = ['src/try', 'packages/studio'].find((path) => existsSync(path))!; // where this process runs
    await expect(pathOf(here, folders)).rejects.toThrow('there is no such');
    expect(await pathOf('some/model', folders)).toBe('some/model');
    const answer = await studio.post('/api/settings', { model: 'away/model', data: 'data' });
    expect(answer.status).toBe(403);
    await rm(join(root, 'away'));
  });

  it('follows no symbolic link that leads outside: folders, data files, pictures', async () => {
    await symlink(outside, join(root, 'link'));
    await writeFile(join(outside, 'rows.jsonl'), '{"image":"secret.png","caption":"x y"}\n');
    await symlink(join(outside, 'rows.jsonl'), join(root, 'linked.jsonl'));
    await symlink(join(outside, 'secret.png'), join(root, 'linked.png'));
    await writeFile(
      join(root, 'rows.jsonl'),
      `{"image":"linked.png","caption":"a"}\n{"image":"${outside}/secret.png","caption":"b"}\n{"image":"data/red.png","caption":"c"}\n`,
    );
    expect((await studio.get('/api/files?path=link')).status).toBe(403);
    expect((await studio.get('/api/data?path=linked.jsonl')).status).toBe(403);
    const pictures = [0, 1, 2].map((i) =>
      studio.get(`/api/data/picture?path=rows.jsonl&index=${i}&side=128`),
    );
    expect((await Promise.all(pictures)).map(({ status }) => status)).toEqual([403, 403, 200]);
    const names = ((await (await studio.get('/api/files?path=.')).json()) as Listing).entries;
    expect(names.map(({ name }) => name)).not.toContain('link');
  });
});

describe('requests', () => {
  it('refuses what is too large, no JSON, or of the wrong form', async () => {
    expect(await begun('/api/data/text', 2 << 20)).toBe('HTTP/1.1 413 Payload Too Large');
    expect(await begun('/api/try?run=x', 33 << 20)).toBe('HTTP/1.1 413 Payload Too Large');
    expect((await studio.post('/api/data/text', '{')).status).toBe(400);
    for (const query of ['', '?run=..', '?run=gone', '?run=a&run=b&run=c&run=d&run=e'])
      expect([400, 404, 422], query).toContain((await studio.post(`/api/try${query}`, 'x')).status);
    for (const body of ['null', '[]', '{"path":1}', '"x"'])
      for (const path of ['/api/data/text', '/api/jobs', '/api/settings'])
        expect((await studio.post(path, body)).status, `${path} ${body}`).toBe(422);
    expect((await studio.get('/api/data/picture?path=data&index=-1')).status).toBe(422);
    expect((await studio.get('/api/files?path=data/metadata.jsonl')).status).toBe(400);
    for (const more of [{ model: 5 }, { data: { path: ['data'] } }])
      expect([400, 422]).toContain(
        (await studio.post('/api/jobs', { kind: 'check', data: { path: 'data' }, ...more })).status,
      );
    expect((await studio.get('/api/data/picture?path=data&index=99')).status).toBe(404);
  });

  it('refuses JSON that is nested deeply, or that lacks what is asked', async () => {
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
    for (const path of ['/api/data/text', '/api/jobs', '/api/settings', '/api/runs']) {
      for (const body of [
        deep,
        `{"name":${deep}}`,
        `{"model":${deep},"kind":"plan","settings":{"seed":${deep}}}`,
      ])
        expect([400, 422], `${path} ${body.slice(0, 20)}`).toContain((await studio.post(path, body)).status);
      for (const body of [
        'null',
        '1',
        '{}',
        '{"name":5}',
        '{"name":"a","settings":[]}',
        '{"__proto__":{"name":"a"}}',
      ])
        expect((await studio.post(path, body)).status, `${path} ${body}`).toBe(422);
    }
  });

  it.each(['OPTIONS', 'DELETE', 'PUT', 'PATCH'])(
    'does nothing at %s of a path that it has not',
    async (method) => {
      for (const path of ['/', '/api/runs', '/assets/a.js']) {
        expect((await studio.get(path, { method })).status, path).toBe(403); // no token
        const headers = { 'x-studio-token': studio.token };
        expect((await studio.get(path, { method, headers })).status, path).toBe(404);
      }
    },
  );

  it('keeps the details of its own failures in the terminal', async () => {
    const printed = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const file = join(studio.page, 'index.html');
    await rename(file, `${file}-away`);
    const answer = await studio.get('/');
    expect([answer.status, await answer.text()]).toEqual([500, expect.not.stringContaining(studio.page)]);
    expect(printed.mock.calls.join('')).toContain(studio.page);
    await rename(`${file}-away`, file);
    printed.mockRestore();
  });

  it('changes no text outside of its folders, and none of a row that is not there', async () => {
    const change = { path: 'data', role: 'caption', index: 0, from: 'a red thing', to: 'x' };
    const source = join(outside, 'rows.jsonl:1');
    expect((await studio.post('/api/data/text', { ...change, source })).status).toBe(422);
    expect((await studio.post('/api/data/text', { ...change, path: outside, source })).status).toBe(403);
  });

  it('changes no text beside a picture that is a link to another folder', async () => {
    const dir = join(root, 'sidecars');
    await mkdir(dir);
    await copyFile(join(root, 'data', 'red.png'), join(dir, 'a.png'));
    await writeFile(join(outside, 'a.txt'), 'a secret\n');
    await symlink(join(outside, 'a.txt'), join(dir, 'a.txt'));
    const change = { path: 'sidecars', source: join(dir, 'a.png'), role: 'caption', index: 0, to: 'x' };
    for (const from of ['a secret', 'wrong']) {
      const answer = await studio.post('/api/data/text', { ...change, from });
      expect(answer.status).toBe(403);
      expect(await answer.text()).not.toContain('secret');
    }
    expect(await readFile(join(outside, 'a.txt'), 'utf8')).toBe('a secret\n');
  });

  it('takes pictures from no folder outside', async () => {
    const place = { path: 'data', image_folder: outside };
    const query = new URLSearchParams(place).toString();
    for (const address of ['data', 'data/preview', 'data/picture'])
      expect((await studio.get(`/api/${address}?${query}`)).status, address).toBe(403);
    const source = join(root, 'data', 'metadata.jsonl:1');
    const change = { ...place, source, role: 'caption', index: 0, from: 'a red thing', to: 'x' };
    expect((await studio.post('/api/data/text', change)).status).toBe(403);
    expect((await studio.post('/api/data/text', { ...change, image_folder: 1 })).status).toBe(422);
    expect((await studio.post('/api/jobs', { kind: 'check', data: place })).status).toBe(403);
  });

  it('passes on no setting that it does not know, and no option in a value', async () => {
    const settings = { model: 'data', data: 'data' };
    const wrong = [{ output_dir: '/tmp/x' }, { cache_dir: '/' }, { '--help': '1' }, { seed: '--output=/x' }];
    for (const one of wrong) {
      const answer = await studio.post('/api/runs', { name: 'a', settings: { ...settings, ...one } });
      expect(answer.status, JSON.stringify(one)).toBe(422);
    }
    for (const name of ['../x', '-x', 'a/b', '', '.hidden', 'x'.repeat(200)])
      expect((await studio.post('/api/runs', { name, settings })).status, name).toBe(400);
  });

  it('answers others while 200 connections send nothing and events stay open', async () => {
    const { port } = new URL(studio.origin);
    const slow = Array.from({ length: 200 }, () => connect(Number(port), '127.0.0.1'));
    for (const socket of slow) socket.on('error', () => undefined).write('GET / HTTP/1.1\r\n');
    const open = await Promise.all(Array.from({ length: 20 }, () => studio.get('/api/runs/x/events')));
    const page = (await (await studio.get('/api/data?path=data')).json()) as DataPage;
    expect(page.found).toBe(3);
    for (const answer of open) await answer.body!.cancel();
    for (const socket of slow) socket.destroy();
  });
});

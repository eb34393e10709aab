/** Pulling, against a small server that answers like the hub's API: model info, tree, and files with redirect and ranges. */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readFile, readlink, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WeightsError } from './errors';
import { pullModel } from './hub';
import { hubCacheDir, resolveModel } from './hub-cache';

const ID = 'acme/blip2-tiny';
const COMMIT = 'a'.repeat(40);
const BIG = randomBytes(3_000_000); // beyond the size that the client keeps whole
const files: Record<string, { bytes: Buffer; lfs?: boolean }> = {
  'config.json': { bytes: Buffer.from('{"model_type":"blip-2"}\n') },
  'tokenizer.json': { bytes: Buffer.from('{}') },
  'README.md': { bytes: Buffer.from('# no need') },
  'pytorch_model.bin': { bytes: Buffer.from('pickle'), lfs: true },
  'model-00001-of-00002.safetensors': { bytes: BIG, lfs: true },
  'model-00002-of-00002.safetensors': { bytes: Buffer.from('second'), lfs: true },
  'model.safetensors.index.json': { bytes: Buffer.from('{"weight_map":{}}') },
};
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const gitSha1 = (bytes: Buffer) =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

let server: Server;
let folder: string;
let env: Record<string, string | undefined>;
/** The server's requests, and its faults. */
let asked: string[];
let behave: { cutAt?: number; damage?: boolean; token?: string; tree?: typeof files };

function answer(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url!, 'http://hub');
  asked.push(`${url.pathname}${request.headers.range ? ` ${request.headers.range}` : ''}`);
  const json = (value: unknown, status = 200) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  if (behave.token && request.headers.authorization !== `Bearer ${behave.token}`)
    return json({ error: 'Unauthorized' }, 401);
  const current = behave.tree ?? files;
  if (/^\/api\/models\/acme\/blip2-tiny\/revision\/(main|v1|a{40})$/.test(url.pathname))
    return json({ _id: '1', id: ID, sha: COMMIT, private: false, lastModified: '2024-01-01T00:00:00.000Z' });
  if (url.pathname === `/api/models/${ID}/tree/${COMMIT}`) {
    const isListed = (path: string) => url.searchParams.get('recursive') === 'true' || !path.includes('/');
    const listed = Object.entries(current).filter(([path]) => isListed(path));
    const entries = listed.map(([path, { bytes, lfs }]) => ({
      type: 'file',
      path,
      size: bytes.length,
      oid: gitSha1(lfs ? Buffer.from('pointer') : bytes),
      ...(lfs && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 } }),
    }));
    return json([{ type: 'directory', path: 'onnx', size: 0, oid: COMMIT }, ...entries]);
  }
  const path = new RegExp(`^/${ID}/resolve/${COMMIT}/(.+)$`).exec(url.pathname)?.[1];
  if (path && current[path]?.lfs) {
    response.writeHead(302, { location: `/cdn/${path}` });
    return void response.end();
  }
  const file = current[path ?? /^\/cdn\/(.+)$/.exec(url.pathname)?.[1] ?? ''];
  if (!file) return json({ error: 'Repository not found' }, 404);
  sendRange(request, response, file.bytes);
}

function sendRange(request: IncomingMessage, response: ServerResponse, bytes: Buffer): void {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const part = from === undefined ? bytes : bytes.subarray(Number(from), Number(to) + 1);
  response.writeHead(from === undefined ? 200 : 206, {
    etag: '"etag"',
    'content-length': part.length,
    ...(from !== undefined && { 'content-range': `bytes ${from}-${to}/${bytes.length}` }),
  });
  const sent = Buffer.from(part);
  if (behave.damage && sent.length > 1000) sent[500]! ^= 1;
  if (behave.cutAt === undefined || part.length <= behave.cutAt) return void response.end(sent);
  response.write(sent.subarray(0, behave.cutAt), () => setTimeout(() => response.destroy(), 50));
}

beforeAll(async () => {
  server = createServer(answer);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
});
afterAll(() => new Promise((done) => server.close(done)));
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hub-'));
  asked = [];
  behave = {};
  env = { HF_HOME: folder, HF_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` };
  env['HF_HUB_DOWNLOAD_TIMEOUT'] = '0.5';
});
afterEach(() => rm(folder, { recursive: true }));

const repo = () => join(folder, 'hub', 'models--acme--blip2-tiny');
const failure = async (id = ID, options = {}): Promise<string> => {
  const error = await pullModel(id, { env, ...options }).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(WeightsError);
  return (error as Error).message;
};

describe('pull', () => {
  it("fetches what a model needs into Python's cache layout", async () => {
    const progress: number[] = [];
    const { folder: snapshot, files: pulled } = await pullModel(ID, {
      env,
      onProgress: ({ done, total }) => progress.push(done / total),
    });
    const names = [
      'config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'tokenizer.json',
    ];
    expect(snapshot).toBe(join(repo(), 'snapshots', COMMIT));
    expect((await readdir(snapshot)).sort()).toEqual(names);
    expect(pulled.every(({ fetched }) => fetched)).toBe(true);
    for (const name of names)
      expect((await readFile(join(snapshot, name))).equals(files[name]!.bytes), name).toBe(true);
    expect((await readdir(join(repo(), 'blobs'))).sort()).toEqual(
      names.map((name) => (files[name]!.lfs ? sha256 : gitSha1)(files[name]!.bytes)).sort(),
    );
    expect((await lstat(join(snapshot, 'config.json'))).isSymbolicLink()).toBe(true);
    expect(await readlink(join(snapshot, 'config.json'))).toBe(
      join('..', '..', 'blobs', gitSha1(files['config.json']!.bytes)),
    );
    expect(await readFile(join(repo(), 'refs', 'main'), 'utf8')).toBe(COMMIT);
    expect(progress.at(-1)).toBe(1);
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect(resolveModel(ID, env)).toBe(snapshot);
    expect(resolveModel(`${ID}@${COMMIT}`, env)).toBe(snapshot);
  });

  it("fetches InstructBLIP's second tokenizer into its folder, and no other folder", async () => {
    const second = { 'qformer_tokenizer/tokenizer.json': { bytes: Buffer.from('{"second":1}') } };
    const other = { 'onnx/model.safetensors': { bytes: Buffer.from('other'), lfs: true } };
    behave.tree = { ...files, ...second, ...other };
    const { folder: snapshot } = await pullModel(ID, { env });
    expect(await readFile(join(snapshot, 'qformer_tokenizer', 'tokenizer.json'), 'utf8')).toBe(
      '{"second":1}',
    );
    expect((await readdir(snapshot)).filter((name) => !name.includes('.'))).toEqual(['qformer_tokenizer']);
  });

  it('fetches nothing twice', async () => {
    await pullModel(ID, { env });
    asked = [];
    const { files: pulled } = await pullModel(ID, { env, revision: 'v1' });
    expect(pulled.some(({ fetched }) => fetched)).toBe(false);
    expect(asked.filter((path) => !path.startsWith('/api/'))).toEqual([]);
    expect((await readdir(join(repo(), 'refs'))).sort()).toEqual(['main', 'v1']);
  });

  it('continues an interrupted download', async () => {
    behave.cutAt = 500_000;
    expect(await failure()).toMatch(
      /model-00001-of-00002\.safetensors: interrupted .*run the same command again to continue from there/,
    );
    const incomplete = join(repo(), 'blobs', `${sha256(BIG)}.incomplete`);
    const { size } = await lstat(incomplete);
    expect(size).toBeGreaterThan(0);
    expect(size).toBeLessThanOrEqual(1_500_000);
    await expect(readdir(join(repo(), 'refs'))).rejects.toThrow(/ENOENT/);
    expect(() => resolveModel(ID, env)).toThrow(/blip2 pull acme\/blip2-tiny/);
    behave = {};
    asked = [];
    const { folder: snapshot } = await pullModel(ID, { env });
    expect(asked.some((request) => request.endsWith(`.safetensors bytes=${size}-${BIG.length - 1}`))).toBe(
      true,
    );
    expect((await readFile(join(snapshot, 'model-00001-of-00002.safetensors'))).equals(BIG)).toBe(true);
  });

  it('a damaged file is deleted and not linked', async () => {
    behave.damage = true;
    expect(await failure()).toMatch(/damaged: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}/);
    expect((await readdir(join(repo(), 'blobs'))).some((name) => name.startsWith(sha256(BIG)))).toBe(false);
    behave = {};
    await pullModel(ID, { env });
    expect(resolveModel(ID, env)).toContain(COMMIT);
  });

  it('a private model needs a token, and the error mentions it', async () => {
    behave.token = 'hf_secret';
    expect(await failure()).toMatch(/refuses \(401\): .*if it is private or gated, set HF_TOKEN/);
    env['HF_TOKEN'] = 'hf_wrong';
    const message = await failure();
    expect(message).toMatch(/the token in HF_TOKEN has no access/);
    expect(message).not.toContain('hf_wrong');
    env['HF_TOKEN'] = 'hf_secret';
    expect((await pullModel(ID, { env })).commit).toBe(COMMIT);
  });

  it('rejects offline, unknown and unreachable models, models without safetensors, and invalid names', async () => {
    expect(await failure('acme/other')).toMatch(/has no such model or revision \(main\)/);
    expect(await failure('just-a-name')).toMatch(/expected a name on the hub/);
    expect(await failure(ID, { revision: '../up' })).toMatch(/revision: expected a branch/);
    behave.tree = { 'config.json': files['config.json']!, 'pytorch_model.bin': files['pytorch_model.bin']! };
    expect(await failure()).toMatch(/expected safetensors, found pytorch_model\.bin/);
    env['HF_ENDPOINT'] = 'http://127.0.0.1:9';
    expect(await failure()).toMatch(/http:\/\/127\.0\.0\.1:9 cannot be reached: /);
    asked = [];
    env['HF_HUB_OFFLINE'] = '1';
    expect(await failure()).toMatch(/HF_HUB_OFFLINE is set/);
    expect(asked).toEqual([]);
  });

  it('a single file before shards, and an adapter alone', async () => {
    behave.tree = { ...files, 'model.safetensors': { bytes: Buffer.from('whole'), lfs: true } };
    expect((await pullModel(ID, { env })).files.map(({ path }) => path).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    behave.tree = {
      'adapter_config.json': { bytes: Buffer.from('{}') },
      'adapter_model.safetensors': { bytes: Buffer.from('lora'), lfs: true },
      'optimizer.pt': { bytes: Buffer.from('no'), lfs: true },
    };
    expect((await pullModel(ID, { env })).files.map(({ path }) => path)).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
    ]);
  });
});

describe('resolveModel', () => {
  it('resolves names in the cache, and returns folders and other texts unchanged', async () => {
    expect(resolveModel(folder, env)).toBe(folder);
    expect(resolveModel('no/such/folder', env)).toBe('no/such/folder');
    expect(() => resolveModel('acme/blip2@v2', env)).toThrow(
      /fetch it first: blip2 pull acme\/blip2 --revision v2/,
    );
  });

  it('a mistyped path: names the nearest folder, or those beside it, and no command that fetches', async () => {
    const models = join(folder, 'models');
    await mkdir(join(models, 'blip2-emoji-mini', 'adapter'), { recursive: true });
    const message = (path: string) => {
      try {
        return resolveModel(path, env);
      } catch (error) {
        return (error as Error).message;
      }
    };
    const meant = (path: string) => /; did you mean (.*)\?$/.exec(message(path))?.[1];
    const good = join(models, 'blip2-emoji-mini');
    for (const name of ['blip2-emoji-min', 'blip2_emoji-mini', 'Blip2-Emoji-Mini', 'blip2-emojii-mini'])
      expect([name, meant(join(models, name))]).toEqual([
        name,
        existsSync(join(models, name)) ? undefined : good,
      ]);
    expect(meant(join(folder, 'modles', 'blip2-emoji-min', 'adaptr'))).toBe(join(good, 'adapter'));
    const path = join(models, 'opt');
    expect(message(path)).toBe(`${path}: there is no such folder; ${models} has blip2-emoji-mini`);
    const back = process.cwd();
    process.chdir(folder);
    try {
      expect(message('models/blip2-emoji-min')).toContain('did you mean models/blip2-emoji-mini?');
      expect(message('models/other')).toMatch(/^models\/other: .* models has blip2-emoji-mini$/);
      expect(message('blip2/other')).toContain('blip2 pull blip2/other');
    } finally {
      process.chdir(back);
    }
  });

  it('a snapshot without configuration is not complete', async () => {
    await mkdir(join(repo(), 'snapshots', COMMIT), { recursive: true });
    await mkdir(join(repo(), 'refs'));
    await writeFile(join(repo(), 'refs', 'main'), COMMIT);
    expect(() => resolveModel(ID, env)).toThrow(/is not complete; fetch the rest: blip2 pull/);
  });

  it('finds the cache as Python does', () => {
    expect(hubCacheDir({ HF_HUB_CACHE: 'a', HF_HOME: 'b' })).toBe('a');
    expect(hubCacheDir({ HF_HOME: 'b', XDG_CACHE_HOME: 'c' })).toBe(join('b', 'hub'));
    expect(hubCacheDir({ XDG_CACHE_HOME: 'c' })).toBe(join('c', 'huggingface', 'hub'));
    expect(hubCacheDir({})).toMatch(/\.cache.huggingface.hub$/);
  });
});

/** Pulling from a hub, or through a network, that misbehaves in one way at a time. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdtemp, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WeightsError } from './errors';
import { pullModel } from './hub';
import type { PullOptions } from './hub';

const ID = 'acme/tiny';
const COMMIT = 'a'.repeat(40);
const WEIGHTS = Buffer.alloc(3_000_000, 'weights!');
const SIZE = WEIGHTS.length;
const HASH = createHash('sha256').update(WEIGHTS).digest('hex');
const CONFIG = Buffer.from('{"model_type":"blip-2"}\n');
const CONFIG_HASH = createHash('sha1').update(`blob ${CONFIG.length}\0`).update(CONFIG).digest('hex');

/** One request of a kind: the model's info, its list of files, or the weights (after the redirect). */
interface Request {
  request: IncomingMessage;
  response: ServerResponse;
  /** how many requests of this kind came before */
  before: number;
  /** the first byte that is asked for */
  from: number;
}
interface Fault {
  info?: (r: Request) => void;
  tree?: (r: Request) => void;
  redirect?: (r: Request) => void;
  weights?: (r: Request) => void;
}

const send = (
  { response }: Request,
  status: number,
  headers: OutgoingHttpHeaders,
  body?: string | Buffer,
) => {
  response.writeHead(status, headers);
  if (body !== undefined) response.end(body);
};
const json = (r: Request, value: unknown, status = 200, headers: OutgoingHttpHeaders = {}) =>
  send(r, status, { 'content-type': 'application/json', ...headers }, JSON.stringify(value));
const info = (sha = COMMIT) => ({
  _id: '1',
  id: ID,
  sha,
  private: false,
  lastModified: '2024-01-01T00:00:00Z',
});
const lfs = {
  path: 'model.safetensors',
  type: 'file',
  size: SIZE,
  oid: COMMIT,
  lfs: { oid: HASH, size: SIZE },
};
const list = (weights: object = {}, ...more: object[]) => [
  { type: 'file', path: 'config.json', size: CONFIG.length, oid: CONFIG_HASH },
  { ...lfs, ...weights },
  ...more,
];
/** The bytes that a right answer has, its status and its headers. */
const right = ({ from }: Request, bytes = WEIGHTS) => ({
  part: bytes.subarray(from),
  status: from > 0 ? 206 : 200,
  headers: {
    'content-length': SIZE - from,
    ...(from > 0 && { 'content-range': `bytes ${from}-${SIZE - 1}/${SIZE}` }),
  },
});
const sendWeights = (r: Request, bytes = WEIGHTS, change: OutgoingHttpHeaders = {}) => {
  const { part, status, headers } = right(r, bytes);
  send(r, status, { ...headers, ...change }, part);
};
/** Sends the first 1,000 bytes of a right answer, in chunks without a length. */
const sendStart = (r: Request) => {
  const { part, status, headers } = right(r);
  send(r, status, r.from > 0 ? { 'content-range': headers['content-range'] } : {}, part.subarray(0, 1000));
};
/** Starts a right answer, and leaves the rest to `then`. */
const begin = (r: Request, then: (part: Buffer) => void) => {
  const { part, status, headers } = right(r);
  send(r, status, headers);
  then(part);
};
/** Writes until the other side goes away. */
const forever = ({ response }: Request, chunk: Buffer, everyMs: number) => {
  const timer = setInterval(() => response.write(chunk), everyMs);
  response.on('close', () => clearInterval(timer));
};
/** Writes one byte every 30 ms. */
const trickle = (r: Request, part: Buffer) => {
  let at = 0;
  const timer = setInterval(() => r.response.write(part.subarray(at, ++at)), 30);
  r.response.on('close', () => clearInterval(timer));
};
const HTML = '<html><script>login()</script></html>';
const LOGIN = { 'content-type': 'text/html', 'content-length': HTML.length };

const SUCCEEDS: Record<string, Fault> = {
  'no fault': {},
  'a slow but steady connection': {
    weights: (r) =>
      begin(r, (part) => {
        let at = 0;
        const timer = setInterval(() => {
          r.response.write(part.subarray(at, (at += 200_000)));
          if (at < part.length) return;
          clearInterval(timer);
          r.response.end();
        }, 20);
      }),
  },
  'status 500 once': { weights: (r) => (r.before === 0 ? json(r, {}, 500) : sendWeights(r)) },
  'status 429 once': { weights: (r) => (r.before === 0 ? json(r, {}, 429) : sendWeights(r)) },
  'status 503 of the list once': { tree: (r) => (r.before === 0 ? json(r, {}, 503) : json(r, list())) },
  'a connection that is reset once': {
    weights: (r) => (r.before === 0 ? r.request.socket.resetAndDestroy() : sendWeights(r)),
  },
  'a stall after a third': {
    weights: (r) =>
      r.before === 0 ? begin(r, (part) => r.response.write(part.subarray(0, 1_000_000))) : sendWeights(r),
  },
  'a server without ranges that breaks off once': {
    weights: (r) => {
      if (r.before > 0) return send(r, 200, { 'content-length': SIZE }, WEIGHTS);
      send(r, 200, { 'content-length': SIZE });
      r.response.write(WEIGHTS.subarray(0, 1_000_000), () => setTimeout(() => r.response.destroy(), 50));
    },
  },
  'chunks without a length': { weights: (r) => send(r, 200, {}, WEIGHTS) },
  'a file that is listed twice': { tree: (r) => json(r, list({}, lfs)) },
  'paths that would leave the folder': {
    tree: (r) =>
      json(
        r,
        list(
          {},
          ...[
            '../../../../evil/config.json',
            '/tmp/evil.json',
            'a/../../config.json',
            '..\\merges.txt',
            'config.json\0x',
          ].map((path) => ({ type: 'file', path, size: 2, oid: COMMIT })),
        ),
      ),
  },
  'a next page in a local file': {
    tree: (r) => json(r, list(), 200, { link: '<file:///etc/passwd>; rel="next"' }),
  },
};

const FAILS: Record<string, [fault: Fault, message: RegExp]> = {
  'a login page instead of the file': [
    { weights: (r) => send(r, 200, LOGIN, HTML) },
    /found an answer of 37|web page/,
  ],
  'a login page without a length': [
    { weights: (r) => send(r, 200, { 'content-type': 'text/html' }, HTML) },
    /web page, such as the login page/,
  ],
  'a login page as a part of the file': [
    { weights: (r) => send(r, 206, { 'content-length': 37 }, HTML) },
    /expected the file, found status 206/,
  ],
  'another length': [
    { weights: (r) => sendWeights(r, WEIGHTS, { 'content-length': 1000 }) },
    /found an answer of 1000/,
  ],
  'less than announced, again and again': [
    {
      weights: (r) => sendStart(r),
    },
    /interrupted/,
  ],
  'more than announced': [
    { weights: (r) => (send(r, 200, {}), forever(r, Buffer.alloc(1_000_000), 1)) },
    /expected 3000000 bytes, found more/,
  ],
  'nothing after the head': [
    { weights: (r) => begin(r, () => r.response.flushHeaders()) },
    /less than 1024 bytes a second/,
  ],
  'no answer at all': [{ weights: () => undefined }, /no answer in 0\.3 s/],
  'one byte at a time': [
    { weights: (r) => begin(r, (part) => trickle(r, part)) },
    /less than 1024 bytes a second/,
  ],
  'a damaged byte': [
    {
      weights: (r) =>
        sendWeights(r, Buffer.concat([WEIGHTS.subarray(0, 5000), Buffer.from('x'), WEIGHTS.subarray(5001)])),
    },
    /damaged: expected sha256/,
  ],
  'a compressed file': [
    { weights: (r) => sendWeights(r, WEIGHTS, { 'content-encoding': 'br' }) },
    /plain file|interrupted/,
  ],
  'status 416': [{ weights: (r) => json(r, {}, 416) }, /found status 416/],
  'status 404': [{ weights: (r) => json(r, {}, 404) }, /found status 404/],
  'status 500 always': [{ weights: (r) => json(r, {}, 500) }, /status 500/],
  'a reset always': [{ weights: (r) => r.request.socket.resetAndDestroy() }, /interrupted/],
  'a redirect in a circle': [
    { redirect: (r) => send(r, 302, { location: `${r.request.url}?${r.before}` }, '') },
    /redirect count exceeded/,
  ],
  'a redirect to a local file': [
    { redirect: (r) => send(r, 302, { location: 'file:///etc/passwd' }, '') },
    /interrupted/,
  ],
  'a redirect to nowhere': [{ redirect: (r) => send(r, 302, {}, '') }, /found status 302|interrupted/],
  'a negative size': [
    { tree: (r) => json(r, list({ size: -5 })) },
    /expected a size from the hub, found "-5"/,
  ],
  'a size that is no number': [{ tree: (r) => json(r, list({ size: 'NaN' })) }, /expected a size/],
  'a size in quotes': [{ tree: (r) => json(r, list({ size: '3000000' })) }, /expected a size/],
  'a size beyond the disk': [{ tree: (r) => json(r, list({ size: 1e15 })) }, /needs 931322\.6 GiB, but/],
  'a size that is too small': [
    { tree: (r) => json(r, list({ size: 1000 })) },
    /expected 1000 bytes, found an answer of 3000000/,
  ],
  'weights of no bytes': [{ tree: (r) => json(r, list({ size: 0 })) }, /expected a size/],
  'no checksum': [{ tree: (r) => json(r, list({ lfs: undefined, oid: undefined })) }, /expected a checksum/],
  'a checksum that is a path': [
    { tree: (r) => json(r, list({ lfs: { oid: '../../../evil' } })) },
    /expected a checksum/,
  ],
  'a list that is none': [{ tree: (r) => json(r, { a: 1 }) }, /expected the answers of a Hugging Face hub/],
  'entries that are none': [
    { tree: (r) => json(r, [null, 3, 'x']) },
    /expected safetensors, found no weights/,
  ],
  'pages without end': [
    {
      tree: (r) =>
        json(r, list(), 200, { link: `<http://${r.request.headers.host}${r.request.url}>; rel="next"` }),
    },
    /expected at most 50 pages/,
  ],
  'a next page on another host': [
    { tree: (r) => json(r, list(), 200, { link: '<http://127.0.0.1:9/evil>; rel="next"' }) },
    /expected a list on http:\/\/127\.0\.0\.1:\d+, found http:\/\/127\.0\.0\.1:9\/evil/,
  ],
  'a login page instead of the info': [
    { info: (r) => send(r, 200, LOGIN, HTML) },
    /expected the answers of a Hugging Face hub/,
  ],
  'half of the info': [
    { info: (r) => (send(r, 200, {}), void r.response.write('{')) },
    /less than 1024 bytes a second/,
  ],
  'no info': [{ info: () => undefined }, /no answer in 0\.3 s/],
  'info that never ends': [
    { info: (r) => (send(r, 200, {}), forever(r, Buffer.alloc(4_000_000, 'a'), 1)) },
    /expected an answer of at most 33554432 bytes/,
  ],
  'info in a circle': [
    { info: (r) => send(r, 302, { location: `/api/models/x?${r.before}` }, '') },
    /redirect count/,
  ],
  'status 500 of the info': [{ info: (r) => json(r, { error: 'x' }, 500) }, /status 500/],
  'status 429 of the info': [{ info: (r) => json(r, { error: 'slow down' }, 429) }, /status 429.*slow down/],
  'a commit that is a path': [{ info: (r) => json(r, info('../../../evil')) }, /expected a commit/],
};

let server: Server;
let folder: string;
let options: PullOptions;
let fault: Fault;
let counts: Record<keyof Fault, number>;

function answer(request: IncomingMessage, response: ServerResponse): void {
  const path = new URL(request.url!, 'http://hub').pathname;
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const handle = (kind: keyof Fault, otherwise: (r: Request) => void) =>
    (fault[kind] ?? otherwise)({ request, response, from, before: counts[kind]++ });
  if (path.includes('/tree/')) return handle('tree', (r) => json(r, list()));
  if (path.startsWith('/api/')) return handle('info', (r) => json(r, info()));
  if (path.endsWith('/config.json')) return void response.end(CONFIG);
  if (path.startsWith('/cdn/')) return handle('weights', sendWeights);
  return handle('redirect', (r) => send(r, 302, { location: '/cdn/model.safetensors' }, ''));
}

beforeEach(async () => {
  server = createServer(answer);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  folder = await mkdtemp(join(tmpdir(), 'hub-faults-'));
  const { port } = server.address() as AddressInfo;
  const env = { HF_ENDPOINT: `http://127.0.0.1:${port}`, HF_HUB_DOWNLOAD_TIMEOUT: '10' };
  options = { env, cacheDir: join(folder, 'cache') };
  counts = { info: 0, tree: 0, redirect: 0, weights: 0 };
  fault = {};
});
afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

/** A short time-out, so that stalls end soon; and the usual one, for a loaded machine. */
const impatient = () => (options.env!['HF_HUB_DOWNLOAD_TIMEOUT'] = '0.3');
const patient = () => (options.env!['HF_HUB_DOWNLOAD_TIMEOUT'] = '10');

const blobs = () => join(folder, 'cache', 'models--acme--tiny', 'blobs');

/** Each blob under its final name has the content of its name; an unfinished one is not longer than the file. */
async function expectSound(): Promise<void> {
  expect(await readdir(folder)).toEqual(existsSync(join(folder, 'cache')) ? ['cache'] : []);
  for (const name of await readdir(blobs()).catch(() => [])) {
    const content = await readFile(join(blobs(), name));
    if (name === HASH) expect(content.equals(WEIGHTS)).toBe(true);
    else if (name === CONFIG_HASH) expect(content.equals(CONFIG)).toBe(true);
    else {
      expect(name).toBe(`${HASH}.incomplete`);
      expect(content.equals(WEIGHTS.subarray(0, content.length)), 'kept bytes are right').toBe(true);
    }
  }
}

describe('pull from a hub that misbehaves', () => {
  it.each(Object.entries(SUCCEEDS))('succeeds: %s', async (_, way) => {
    fault = way;
    if (way === SUCCEEDS['a stall after a third']) impatient();
    const pulled = await pullModel(ID, options);
    expect((await readFile(join(pulled.folder, 'model.safetensors'))).equals(WEIGHTS)).toBe(true);
    await expectSound();
  });

  it.each(Object.entries(FAILS))(
    'fails in a sentence, then succeeds without the fault: %s',
    async (_, [way, message]) => {
      fault = way;
      impatient();
      const error = await pullModel(ID, options).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(WeightsError);
      expect((error as Error).message).toMatch(message);
      await expectSound();
      fault = {};
      patient();
      const pulled = await pullModel(ID, options);
      expect((await readFile(join(pulled.folder, 'model.safetensors'))).equals(WEIGHTS)).toBe(true);
      await expectSound();
    },
  );
});

describe('several pulls at once', () => {
  it('share one download', async () => {
    fault.weights = async (r) => (await sleep(200), sendWeights(r));
    const pulls = await Promise.all([1, 2, 3].map(() => pullModel(ID, options)));
    expect(counts.weights).toBe(1);
    expect(pulls.flatMap(({ files }) => files).filter(({ fetched }) => fetched)).toHaveLength(2);
    await expectSound();
  });
});

describe('pull --verify', () => {
  it('finds a damaged file in the cache, which a plain pull does not read', async () => {
    const { files } = await pullModel(ID, options);
    expect(files.map(({ verified }) => verified)).toEqual([true, true]);
    const blob = join(blobs(), HASH);
    await writeFile(blob, Buffer.concat([Buffer.from('x'), WEIGHTS.subarray(1)]));
    const plain = await pullModel(ID, options);
    expect(plain.files.map(({ fetched, verified }) => fetched || verified)).toEqual([false, false]);
    const messages: string[] = [];
    const verified = await pullModel(ID, {
      ...options,
      verify: true,
      onMessage: (text) => messages.push(text),
    });
    expect(verified.files.map((file) => [file.fetched, file.verified])).toEqual([
      [false, true],
      [true, true],
    ]);
    expect(messages).toEqual(['model.safetensors: damaged in the cache; downloading it again']);
    await expectSound();
  });
});

describe('an earlier, unfinished download', () => {
  it('is continued from its end, or started again if it is longer than the file', async () => {
    await pullModel(ID, options);
    const incomplete = join(blobs(), `${HASH}.incomplete`);
    for (const [size, from] of [
      [1000, 1000],
      [SIZE + 1, 0],
      [SIZE, undefined],
    ] as const) {
      await rm(join(blobs(), HASH));
      await writeFile(incomplete, WEIGHTS);
      await truncate(incomplete, size);
      let first: number | undefined;
      fault.weights = (r) => ((first = r.from), sendWeights(r));
      await pullModel(ID, options);
      expect(first).toBe(from);
      expect((await lstat(join(blobs(), HASH))).size).toBe(SIZE);
      await expectSound();
    }
  });
});

describe('an earlier download of wrong bytes', () => {
  it('is found by the checksum, and the file is downloaded from the start', async () => {
    await pullModel(ID, options);
    await rm(join(blobs(), HASH));
    await writeFile(join(blobs(), `${HASH}.incomplete`), 'something else');
    const pulled = await pullModel(ID, options);
    expect((await readFile(join(pulled.folder, 'model.safetensors'))).equals(WEIGHTS)).toBe(true);
    await expectSound();
  });
});

describe('before the weights', () => {
  it('a model can be refused by its configuration', async () => {
    const refused = pullModel(ID, {
      ...options,
      beforeWeights: async (at) => {
        expect(await readFile(join(at, 'config.json'))).toEqual(CONFIG);
        throw new Error('another model');
      },
    });
    await expect(refused).rejects.toThrow('another model');
    expect(counts.weights).toBe(0);
  });
});

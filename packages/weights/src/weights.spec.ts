import { mkdir, mkdtemp, open, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { DTYPES, bytesPerElement } from './dtype';
import type { DType } from './dtype';
import { WeightsError } from './errors';
import { openWeights } from './files';
import type { TensorToWrite } from './encode';
import { writeFileAtomic } from './staging';
import { writeSafetensors, writeSharded } from './writer';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weights-'));
});
afterAll(() => rm(folder, { recursive: true }));

let files = 0;
const freshPath = () => join(folder, `case-${files++}`);

/** A file with this header text and this many data bytes. */
async function craft(header: string | Uint8Array, dataBytes = 0, length?: bigint): Promise<string> {
  const file = `${freshPath()}.safetensors`;
  const json = Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.byteLength));
  await writeFile(file, Buffer.concat([prefix, json, Buffer.alloc(dataBytes)]));
  return file;
}

/** The error of opening a path; fails if there is none or it is not a WeightsError. */
async function openError(path: string): Promise<WeightsError> {
  const error = await openWeights(path).then(
    async (reader) => {
      await reader.close();
      return undefined;
    },
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(WeightsError);
  expect((error as Error).message).toContain(path);
  return error as WeightsError;
}

const f32 = (name: string, shape: number[], values: number[]): TensorToWrite => ({
  name,
  dtype: 'F32',
  shape,
  data: Float32Array.from(values),
});

const anyTensors = fc.uniqueArray(
  fc
    .record({
      name: fc
        .string({ unit: 'binary' })
        .filter((name) => name !== '__metadata__' && Buffer.from(name).toString() === name),
      dtype: fc.constantFrom<DType>(...DTYPES),
      shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    })
    .chain(({ name, dtype, shape }) => {
      const length = shape.reduce((n, size) => n * size, 1) * bytesPerElement(dtype);
      return fc
        .uint8Array({ minLength: length, maxLength: length })
        .map((data) => ({ name, dtype, shape, data }));
    }),
  { selector: ({ name }) => name, maxLength: 8 },
);

describe('round trip', () => {
  it('any tensors of any dtype, name and shape come back byte for byte, single and sharded', async () => {
    await fc.assert(
      fc.asyncProperty(anyTensors, fc.integer({ min: 1, max: 64 }), async (tensors, maxShardBytes) => {
        const path = freshPath();
        await writeSafetensors(`${path}.safetensors`, tensors, { note: 'ü' });
        await writeSharded(path, tensors, { maxShardBytes, metadata: { note: 'ü' } });
        for (const place of [`${path}.safetensors`, path]) {
          const reader = await openWeights(place);
          expect(reader.metadata).toEqual({ note: 'ü' });
          expect([...reader.entries.keys()].sort()).toEqual(tensors.map(({ name }) => name).sort());
          for (const { name, dtype, shape, data } of tensors) {
            expect(reader.entries.get(name)).toMatchObject({ name, dtype, shape });
            expect(Buffer.from(await reader.readRaw(name)).equals(Buffer.from(data))).toBe(true);
          }
          await reader.close();
        }
      }),
      { numRuns: 60 },
    );
  });

  it('typed arrays are converted to the dtype, and functions are called once', async () => {
    const file = `${freshPath()}.safetensors`;
    let asked = 0;
    await writeSafetensors(file, [
      { name: 'lazy', dtype: 'F16', shape: [2], data: async () => (asked++, Float32Array.of(1.5, -2)) },
      { name: 'bf', dtype: 'BF16', shape: [], data: Float32Array.of(3) },
      { name: 'f64', dtype: 'F64', shape: [1], data: Float32Array.of(0.25) },
      { name: 'ids', dtype: 'I64', shape: [1, 2], data: Int32Array.of(-1, 5) },
      { name: 'big', dtype: 'I64', shape: [1], data: BigInt64Array.of(-9n) },
      { name: 'view', dtype: 'F32', shape: [2], data: new Float32Array([9, 1, 2, 9]).subarray(1, 3) },
    ]);
    const reader = await openWeights(file);
    const read = async (name: string) => [...(await reader.readFloat32(name))];
    expect(await Promise.all(['lazy', 'bf', 'f64', 'ids', 'big', 'view'].map(read))).toEqual([
      [1.5, -2],
      [3],
      [0.25],
      [-1, 5],
      [-9],
      [1, 2],
    ]);
    expect(asked).toBe(1);
    expect(reader.metadata).toEqual({ format: 'pt' });
    for (const { begin, dtype } of reader.entries.values()) expect(begin % bytesPerElement(dtype)).toBe(0);
    await reader.close();
    await expect(reader.readFloat32('bf')).rejects.toThrow(/read after close/);
  });

  it('a converted tensor larger than one piece is read in pieces', async () => {
    const file = `${freshPath()}.safetensors`;
    const values = Float32Array.from({ length: (8 << 19) + 1001 }, (_, i) => i % 256);
    await writeSafetensors(file, [{ name: 'w', dtype: 'BF16', shape: [values.length], data: values }]);
    const reader = await openWeights(file);
    const back = await reader.readFloat32('w');
    await reader.close();
    expect(Buffer.from(back.buffer).equals(Buffer.from(values.buffer))).toBe(true);
  });

  it('an unknown name is an error with the file', async () => {
    const file = `${freshPath()}.safetensors`;
    await writeSafetensors(file, [f32('a', [1], [1])]);
    const reader = await openWeights(file);
    await expect(reader.readRaw('b')).rejects.toThrow(
      `${file}: tensor "b": expected among 1 tensors, not found`,
    );
    await reader.close();
  });
});

describe('broken files', () => {
  const entry = (over: object) =>
    JSON.stringify({ w: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...over } });
  const two = (a: [number, number], b: [number, number]) =>
    JSON.stringify({
      a: { dtype: 'U8', shape: [a[1] - a[0]], data_offsets: a },
      b: { dtype: 'U8', shape: [b[1] - b[0]], data_offsets: b },
    });

  it.each<[string, string | Uint8Array, number, RegExp, bigint?]>([
    [
      'header beyond the cap',
      '{}',
      0,
      /expected at most 100000000 bytes, found 18446744073709551615/,
      2n ** 64n - 1n,
    ],
    ['header beyond the file', '{}', 0, /expected 2 … 2 bytes.*found 90000000.*truncated/, 90_000_000n],
    ['empty header', '', 0, /header length: expected/],
    ['no JSON', 'version https://git-lfs', 0, /expected JSON in UTF-8/],
    ['no UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), 0, /expected JSON in UTF-8/],
    ['no object', '[1, 2]', 0, /expected a JSON object, found \[1,2\]/],
    ['brackets 100,000 deep', '['.repeat(100_000), 0, /expected JSON/],
    ['a name twice', entry({}).replace('}}', '}') + `,${entry({}).slice(1)}`, 8, /found twice: "w"/],
    [
      'a name twice, escaped',
      `{"w":${entry({}).slice(5, -1)},"\\u0077":${entry({}).slice(5)}`,
      8,
      /found twice: "w"/,
    ],
    [
      'a field twice',
      '{"w":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,2]}}',
      2,
      /found twice: "shape"/,
    ],
    ['entry is no object', '{"w":5}', 0, /tensor "w": entry: expected .*found 5/],
    [
      'unknown dtype',
      entry({ dtype: 'F128' }),
      8,
      /tensor "w": dtype: expected one of F64 F32 .*found "F128"/,
    ],
    [
      'a dtype of quantised weights, in one sentence',
      entry({ dtype: 'F8_E4M3' }),
      8,
      /: weights are stored as "F8_E4M3", such as "w": they are quantised.*bfloat16$/,
    ],
    [
      'negative size',
      entry({ shape: [-2] }),
      8,
      /tensor "w": shape: expected a list of whole numbers, found \[-2\]/,
    ],
    ['fractional size', entry({ shape: [0.5, 4] }), 8, /tensor "w": shape/],
    ['overflowing shape', entry({ shape: [2 ** 40, 2 ** 40] }), 8, /byte count: expected Infinity/],
    ['offsets reversed', entry({ data_offsets: [8, 0] }), 8, /data_offsets: expected \[begin, end\]/],
    [
      'bytes ≠ shape × dtype',
      entry({ shape: [3] }),
      8,
      /byte count: expected 12 for F32 \[3\], found "8 \(0 … 8\)"/,
    ],
    ['overlap', two([0, 4], [2, 6]), 6, /tensor "b": overlaps.*expected to begin at 4, found 2/],
    ['gap', two([0, 4], [5, 6]), 6, /tensor "b": leaves a gap.*expected to begin at 4, found 5/],
    ['gap before the first', entry({ data_offsets: [4, 12] }), 12, /tensor "w": leaves a gap/],
    ['truncated data', entry({}), 7, /truncated: expected a file of \d+ bytes, found \d+/],
    ['bytes after the end', entry({}), 9, /bytes after the last tensor/],
    ['metadata is no text', '{"__metadata__":{"n":1}}', 0, /__metadata__: expected an object of strings/],
  ])('%s', async (_, header, dataBytes, message, length) => {
    expect((await openError(await craft(header, dataBytes, length))).message).toMatch(message);
  });

  it('a disk that cannot read a tensor: file and tensor are named', async () => {
    const file = await craft(entry({}), 8);
    const reader = await openWeights(file);
    const handle = await open(file);
    vi.spyOn(Object.getPrototypeOf(handle) as typeof handle, 'read').mockRejectedValueOnce(
      new Error('EIO: i/o error, read'),
    );
    await expect(reader.readRaw('w')).rejects.toThrow(`${file}: w: cannot be read: EIO: i/o error, read`);
    await Promise.all([handle.close(), reader.close()]);
  });

  it('all faulty tensors are in one error', async () => {
    const file = await craft('{"a":5,"b":{"dtype":"X","shape":[],"data_offsets":[0,1]},"c":{}}', 1);
    expect((await openError(file)).problems).toHaveLength(3);
  });

  it.each(['[', '{"a":', '[],', '0,'])(
    'a large header of %j is refused without parsing it',
    async (piece) => {
      const inner = piece.repeat(Math.floor(20_000_000 / piece.length));
      const before = process.memoryUsage().rss;
      const message = (await openError(await craft(`{"a":[${inner}`, 0))).message;
      expect(message).toMatch(/header: expected tensors of 50 bytes and more, found .* it is no header/);
      expect(process.memoryUsage().rss - before).toBeLessThan(300 << 20);
    },
  );

  it('absent path, empty file, folder in place of a file, folder without weights', async () => {
    expect((await openError(freshPath())).message).toMatch(/expected a .safetensors file or a model folder/);
    const empty = freshPath();
    await writeFile(empty, '');
    expect((await openError(empty)).message).toMatch(/expected a safetensors file, found an empty file/);
    const bare = freshPath();
    await mkdir(join(bare, 'model.safetensors'), { recursive: true });
    expect((await openError(bare)).message).toMatch(/model.safetensors: .*/);
    const torch = freshPath();
    await mkdir(torch);
    await writeFile(join(torch, 'pytorch_model.bin'), '');
    expect((await openError(torch)).message).toMatch(
      /expected model.safetensors or .*found pytorch_model.bin.*save_pretrained/,
    );
  });

  it('a file cut after opening fails the read', async () => {
    const file = `${freshPath()}.safetensors`;
    await writeSafetensors(file, [f32('w', [2], [1, 2])]);
    const reader = await openWeights(file);
    await truncate(file, reader.entries.get('w')!.begin + 4);
    await expect(reader.readFloat32('w')).rejects.toThrow(/w: expected 8 bytes at \d+, found 4/);
    await reader.close();
  });
});

describe('sharded folders', () => {
  const tensors = [f32('a', [2], [1, 2]), f32('b.c', [1], [3]), f32('d', [1], [4])];
  const index = (path: string) => join(path, 'model.safetensors.index.json');
  async function sharded(): Promise<string> {
    const path = freshPath();
    await writeSharded(path, tensors, { maxShardBytes: 8 });
    return path;
  }

  it('file names and index are as in transformers; an earlier save is replaced completely', async () => {
    const path = await sharded();
    expect((await readdir(path)).sort()).toEqual([
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
    ]);
    expect(JSON.parse(await readFile(index(path), 'utf8'))).toEqual({
      metadata: { total_size: 16 },
      weight_map: {
        a: 'model-00001-of-00002.safetensors',
        'b.c': 'model-00002-of-00002.safetensors',
        d: 'model-00002-of-00002.safetensors',
      },
    });
    await writeSharded(path, tensors);
    expect(await readdir(path)).toEqual(['model.safetensors']);
    await writeSharded(path, tensors, { maxShardBytes: 4 });
    expect(await readdir(path)).toHaveLength(4);
  });

  it('an absent shard', async () => {
    const path = await sharded();
    await rm(join(path, 'model-00002-of-00002.safetensors'));
    expect((await openError(path)).message).toMatch(
      /expected 2 shards in .*absent:\n\s+model-00002-of-00002.safetensors/,
    );
  });

  it.each([
    '../outside.safetensors',
    '/etc/x.safetensors',
    'sub/x.safetensors',
    '..\\x.safetensors',
    'x.bin',
    7,
  ])('an index that points to %s', async (shard) => {
    const path = await sharded();
    await writeFile(index(path), JSON.stringify({ weight_map: { a: shard } }));
    expect((await openError(path)).message).toMatch(/tensor "a": expected a plain \*.safetensors file name/);
  });

  it.each(['', 'null', '{}', '{"weight_map":{}}', '{"weight_map":[]}'])(
    'an index that is %j',
    async (text) => {
      const path = await sharded();
      await writeFile(index(path), text);
      expect((await openError(path)).message).toMatch(/index.json: (expected JSON|weight_map: expected)/);
    },
  );

  it('a tensor in two shards, and a listed one that its shard lacks', async () => {
    const path = await sharded();
    await writeSafetensors(join(path, 'model-00002-of-00002.safetensors'), tensors.slice(0, 2));
    expect((await openError(path)).message).toMatch(
      /tensor "a": expected in one shard, found in .*00001.* and .*00002/,
    );
    await writeSafetensors(join(path, 'model-00002-of-00002.safetensors'), tensors.slice(1, 2));
    const reader = await openWeights(path);
    expect([...reader.unresolved]).toEqual([['d', 'model-00002-of-00002.safetensors']]);
    await expect(reader.readRaw('d')).rejects.toThrow(/lists it in model-00002-of-00002.safetensors/);
    await reader.close();
  });
});

describe('writing', () => {
  it.each<[string, TensorToWrite[], RegExp]>([
    ['a name twice', [f32('w', [1], [1]), f32('w', [1], [1])], /tensor "w": expected each name once/],
    ['the reserved name', [f32('__metadata__', [1], [1])], /reserved/],
    ['too few values', [f32('w', [3], [1])], /"w" F32 \[3\]: expected 3 values, found 1/],
    ['a fractional shape', [f32('w', [0.5], [1])], /shape: expected whole numbers/],
    ['floats as I32', [{ ...f32('w', [1], [1]), dtype: 'I32' }], /expected data for I32, found Float32Array/],
    ['an unknown dtype', [{ ...f32('w', [1], [1]), dtype: 'F8' as DType }], /unknown dtype "F8"/],
  ])('refuses %s and leaves nothing, not even of an old file', async (_, tensors, message) => {
    const path = freshPath();
    await mkdir(path);
    const file = join(path, 'w.safetensors');
    await writeFile(file, 'old');
    const written = writeSafetensors(file, tensors);
    await expect(written).rejects.toThrow(WeightsError);
    await expect(written).rejects.toThrow(message);
    expect(await readdir(path)).toEqual(['w.safetensors']);
    expect(await readFile(file, 'utf8')).toBe('old');
  });

  it('a failure in a later shard leaves the folder unchanged', async () => {
    const path = freshPath();
    await writeSharded(path, [f32('a', [1], [1])]);
    const failing: TensorToWrite = { ...f32('b', [1], []), data: () => Promise.reject(new Error('gone')) };
    await expect(writeSharded(path, [f32('a', [1], [2]), failing], { maxShardBytes: 4 })).rejects.toThrow(
      'gone',
    );
    expect(await readdir(path)).toEqual(['model.safetensors']);
  });

  it('writeFileAtomic replaces a text; a missing folder is an error with the file', async () => {
    const file = freshPath();
    await writeFileAtomic(file, 'one');
    await writeFileAtomic(file, 'two');
    expect(await readFile(file, 'utf8')).toBe('two');
    await expect(writeFileAtomic(join(file, 'x', 'y'), '')).rejects.toThrow(/y: cannot be written/);
  });
});

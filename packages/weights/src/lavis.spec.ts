/** LAVIS's .pth files, made by tools/parity/make_lavis_fixture.py with torch.save. */
import { copyFile, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WeightsError } from './errors';
import { importLavis, lavisName } from './lavis';
import { readPickle } from './pickle';
import type { PickleValue } from './pickle';
import { openWeights } from './files';
import { openTorchCheckpoint } from './torch-checkpoint';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/lavis/${name}`, import.meta.url));
const base = fileURLToPath(new URL('../../peft-lora/fixtures/base', import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lavis-'));
});
afterAll(() => rm(folder, { recursive: true }));
let cases = 0;
const freshPath = () => join(folder, `case-${cases++}`);

async function allOf(path: string): Promise<Map<string, Float32Array>> {
  const reader = await openWeights(path);
  const found = new Map<string, Float32Array>();
  for (const name of reader.entries.keys()) found.set(name, await reader.readFloat32(name));
  await reader.close();
  return found;
}

describe('a checkpoint of torch.save', () => {
  it('tensors with dtype and shape, and the numbers beside them', async () => {
    const checkpoint = await openTorchCheckpoint(fixture('trained.pth'));
    const { tensors, metadata } = checkpoint;
    expect(tensors.get('visual_encoder.blocks.0.attn.q_bias')).toMatchObject({ dtype: 'F16', shape: [16] });
    expect(tensors.get('Qformer.bert.embeddings.position_ids')).toMatchObject({
      dtype: 'I64',
      shape: [1, 8],
    });
    expect(await checkpoint.readFloat32('Qformer.bert.embeddings.position_ids')).toEqual(
      Float32Array.from([0, 1, 2, 3, 4, 5, 6, 7]),
    );
    expect([...metadata]).toEqual([['epoch', 4]]);
    expect([...tensors.keys()].some((name) => name.includes('exp_avg'))).toBe(false);
    await expect(checkpoint.readFloat32('nothing')).rejects.toThrow(/there is no tensor "nothing"/);
    await checkpoint.close();
  });

  it('a pickle that would run code is rejected by name', async () => {
    const error = await openTorchCheckpoint(fixture('unsafe.pth')).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(WeightsError);
    expect((error as Error).message).toMatch(/data\.pkl: byte \d+: refers to posix\.system.*it is not run/);
  });

  it('the older format, other files and missing files have different errors', async () => {
    await expect(openTorchCheckpoint(fixture('legacy.pth'))).rejects.toThrow(
      /the older format, which is a bare pickle; in Python: torch\.save\(/,
    );
    await expect(openTorchCheckpoint(fixture('expected.safetensors'))).rejects.toThrow(/found safetensors/);
    await expect(openTorchCheckpoint(freshPath())).rejects.toThrow(/expected a checkpoint file: .*ENOENT/);
    const empty = freshPath();
    await writeFile(empty, '');
    await expect(openTorchCheckpoint(empty)).rejects.toThrow(WeightsError);
  });
});

/** Opens and reads everything; returns the error, which must be a WeightsError. */
async function readAll(file: string): Promise<unknown> {
  try {
    const checkpoint = await openTorchCheckpoint(file);
    try {
      for (const name of checkpoint.tensors.keys()) await checkpoint.readFloat32(name);
    } finally {
      await checkpoint.close();
    }
    return undefined;
  } catch (error) {
    return error;
  }
}

describe('damaged files give named errors', () => {
  it('cut off anywhere', async () => {
    const whole = await readFile(fixture('trained.pth'));
    const file = freshPath();
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), async (length) => {
        await writeFile(file, whole.subarray(0, length));
        expect(await readAll(file)).toBeInstanceOf(WeightsError);
      }),
      { numRuns: 60 },
    );
  });

  it('bits flipped anywhere: a WeightsError, or the same tensors', async () => {
    const whole = await readFile(fixture('trained.pth'));
    const file = freshPath();
    let caught = 0;
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
        const bytes = Uint8Array.from(whole);
        bytes[at]! ^= mask;
        await writeFile(file, bytes);
        const error = await readAll(file);
        if (error === undefined) return;
        expect(error).toBeInstanceOf(WeightsError);
        caught++;
      }),
      { numRuns: 200 },
    );
    expect(caught).toBeGreaterThan(100); // all but padding, dates and flags
  });

  // Checksums reject flipped bits before the pickle is parsed, so the parser is tested alone.
  const rules = { call: () => new Map(), persistent: () => ({}) };
  const program = (...parts: (number | string)[]) =>
    Uint8Array.from(parts.flatMap((part) => (typeof part === 'number' ? [part] : [...Buffer.from(part)])));

  it('any bytes as a pickle', () => {
    const opcodes = [...Buffer.from('(0NKMJGX}])tasuqrhjcRbQ.')].concat(
      0x80,
      0x95,
      0x88,
      0x89,
      0x8a,
      0x8c,
      0x85,
      0x86,
      0x87,
      0x94,
      0x93,
    );
    const byte = fc.oneof(fc.constantFrom(...opcodes), fc.nat(255));
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 300 }), (bytes) => {
        try {
          readPickle(Uint8Array.from(bytes), rules, 'fuzz');
        } catch (error) {
          expect(error).toBeInstanceOf(WeightsError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it.each<[string, Uint8Array, RegExp]>([
    [
      'an opcode that makes objects',
      program(0x80, 2, ')', 0x81, '.'),
      /byte 4: expected an opcode of plain data, found 0x81/,
    ],
    ['old opcodes', program("S'a'\n."), /found 0x53/],
    ['a text longer than the file', program('X', 255, 255, 255, 255, 'a'), /expected 4294967295 more bytes/],
    ['an unknown memo', program('h', 7, '.'), /nothing was memorised as 7/],
    ['an empty stack', program('.'), /expected a value on the stack/],
    ['tuple without mark', program('t.'), /expected a mark/],
    ['an odd dictionary', program('}(Nu.'), /expected a dictionary and pairs/],
    ['a list that is none', program('NNa.'), /expected a list/],
    [
      '6 million marks',
      Buffer.alloc(6_000_000, '('),
      /expected the values of a checkpoint, found more than 5000000/,
    ],
    [
      '6 million memos',
      Buffer.concat([Buffer.from('}'), Buffer.alloc(6_000_000, 0x94)]),
      /found more than 5000000/,
    ],
    ['protocol 9', program(0x80, 9), /protocol 2 … 5, found 9/],
  ])('%s', (_, bytes, message) => expect(() => readPickle(bytes, rules, 'x')).toThrow(message));

  it('numbers and texts', () => {
    const values = (bytes: Uint8Array): PickleValue => readPickle(bytes, rules, 'x');
    expect(values(program('J', 254, 255, 255, 255, '.'))).toBe(-2);
    expect(values(program('M', 1, 2, '.'))).toBe(513);
    expect(values(program(0x8a, 2, 0, 255, '.'))).toBe(-256);
    expect(values(program(0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, '.'))).toBe(2n ** 64n);
    expect(values(program('G', 63, 240, 0, 0, 0, 0, 0, 0, '.'))).toBe(1);
    expect(values(program('X', 2, 0, 0, 0, 195, 169, '.'))).toBe('é');
    expect(values(program(']', 'q', 0, '(', 'K', 1, 0x88, 'h', 0, 'e0', 'h', 0, '.'))).toHaveLength(3);
  });
});

describe('import of LAVIS', () => {
  it('every tensor has its new name, and the others equal the base bit for bit', async () => {
    const output = freshPath();
    const { imported, kept } = await importLavis(fixture('trained.pth'), base, output);
    const [ours, expected, old] = await Promise.all(
      [output, fixture('expected.safetensors'), base].map(allOf),
    );
    expect(imported.sort()).toEqual([...expected!.keys()].sort());
    expect(kept).toBe(old!.size - expected!.size);
    expect([...ours!.keys()].sort()).toEqual([...old!.keys()].sort());
    for (const [name, values] of ours!) expect(values, name).toEqual(expected!.get(name) ?? old!.get(name));
    expect((await readdir(output)).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
    ]);
    await expect(importLavis(fixture('trained.pth'), base, output)).rejects.toThrow(
      /expected a new or empty folder/,
    );
  });

  it('of a T5 model leaves out the copies of frozen embeddings, which the base has under their first name', async () => {
    const [t5, output] = [
      fileURLToPath(new URL('../../blip2/fixtures/tiny-t5', import.meta.url)),
      freshPath(),
    ];
    const { imported } = await importLavis(fixture('trained-t5.pth'), t5, output);
    expect(imported.sort()).toEqual(['language_projection.bias', 'language_projection.weight']);
    const [ours, old] = await Promise.all([output, t5].map(allOf));
    expect([...ours!.keys()].sort()).toEqual([...old!.keys()].sort());
    for (const [name, values] of ours!)
      if (imported.includes(name)) expect(values, name).not.toEqual(old!.get(name));
      else expect(values, name).toEqual(old!.get(name));
  });

  it('the words of the Q-Former of InstructBLIP, with both tokenizers of the base', async () => {
    const [instruct, output] = [
      fileURLToPath(new URL('../../blip2/fixtures/tiny-instructblip', import.meta.url)),
      freshPath(),
    ];
    const { imported } = await importLavis(fixture('trained-instructblip.pth'), instruct, output);
    expect(imported).toHaveLength(19);
    expect(imported).toContain('qformer.embeddings.layernorm.weight');
    const [ours, old] = await Promise.all([output, instruct].map(allOf));
    for (const [i, name] of [...imported].sort().entries())
      expect([...ours!.get(name)!].slice(0, 2), name).toEqual([i, i + 1 / 1024]);
    for (const [name, values] of old!) if (!imported.includes(name)) expect(ours!.get(name)).toEqual(values);
    expect(await readdir(join(output, 'qformer_tokenizer'))).toContain('tokenizer.json');
  });

  it('a file of LoRA is refused with what to do, before anything is written', async () => {
    const file = fileURLToPath(new URL('../../peft-lora/fixtures/old/adapter_model.bin', import.meta.url));
    const output = freshPath();
    await expect(importLavis(file, base, output)).rejects.toThrow(
      /adapter_model\.bin: it has LoRA \(".*lora_A.*"\), whose lora_alpha is not in the file.*pass it as --adapter/,
    );
    await expect(readdir(output)).rejects.toThrow(/ENOENT/);
  });

  it('a base of another size is rejected with every tensor, and nothing is written', async () => {
    const other = freshPath();
    await mkdir(other);
    const adapter = fileURLToPath(
      new URL('../../peft-lora/fixtures/adapter/adapter_model.safetensors', import.meta.url),
    );
    await copyFile(adapter, join(other, 'model.safetensors'));
    const output = freshPath();
    const error = await importLavis(fixture('trained.pth'), other, output).catch((e: unknown) => e);
    expect((error as WeightsError).problems.length).toBeGreaterThan(20);
    expect((error as Error).message).toMatch(
      /does not fit the base .*:\n {2}unexpected "[^"]+": the base has no such tensor/,
    );
    await expect(readdir(output)).rejects.toThrow(/ENOENT/);
  });

  it.each([
    ['opt_model.model.decoder.layers.3.fc1.weight', 'language_model.model.decoder.layers.3.fc1.weight'],
    ['t5_proj.bias', 'language_projection.bias'],
    [
      'Qformer.bert.encoder.layer.4.crossattention.self.key.weight',
      'qformer.encoder.layer.4.crossattention.attention.key.weight',
    ],
    [
      'Qformer.bert.encoder.layer.4.attention.output.LayerNorm.bias',
      'qformer.encoder.layer.4.attention.output.LayerNorm.bias',
    ],
    ['visual_encoder.blocks.38.mlp.fc2.bias', 'vision_model.encoder.layers.38.mlp.fc2.bias'],
    ['query_tokens', 'query_tokens'],
  ])('%s', (lavis, hf) => expect(lavisName(lavis, new Map())).toBe(hf));
});

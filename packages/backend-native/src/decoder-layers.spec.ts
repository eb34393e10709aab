/** Layers of a decoder in one call of the addon: bit for bit the result of their parts, in every precision and kind of weight. */
import {
  activatedLinear,
  decoderLayers,
  dispose,
  isPlainLayer,
  layerNorm,
  linear,
  pagedAttention,
  quantised,
  residualLinear,
  storedTensor,
  tensor,
  tidy,
} from '@blip2/nn';
import type {
  CachePage,
  DecoderLayer,
  DecoderLayerOptions,
  KvPage,
  Linear,
  Precision,
  Tensor,
  Tensor2D,
  Tensor3D,
} from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, describe, expect, it } from 'vitest';
import { addon, levels, loaded, numbers } from '../spec/fixtures';

/** Wide enough for packed copies, and no multiple of a vector's width. */
const [D, F, H] = [68, 95, 4];
type Kind = 'array' | 'BF16' | 'INT8' | 'INT4';

let seed = 0;
const random = <T extends Tensor>(...shape: number[]) =>
  tensor<T>(
    numbers(
      shape.reduce((a, b) => a * b, 1),
      1 + (seed++ % 31),
    ).map((x) => x / 8),
    shape,
  );

function weight(kind: Kind, rows: number, columns: number): Tensor2D {
  const values = random<Tensor2D>(rows, columns);
  if (kind === 'array') return values;
  const words = Uint16Array.from(new Uint32Array(values.dataSync().slice().buffer), (bits) => bits >>> 16);
  values.dispose();
  const given = {
    shape: [rows, columns] as [number, number],
    data: { bytes: new Uint8Array(words.buffer) },
    encoding: { kind: 'BF16' as const },
  };
  if (kind === 'BF16') return storedTensor(given, 1)!;
  return storedTensor(quantised(given, undefined, kind === 'INT4' ? 4 : 8)!, 1)!;
}

function layerOf(kind: Kind, adapters: readonly number[]): DecoderLayer {
  const linears = [0, 1, 2, 3, 4, 5].map((i): Linear => {
    const [out, width] = [i === 4 ? F : D, i === 5 ? F : D];
    const lora = {
      lora_A: { weight: random<Tensor2D>(8, width) },
      lora_B: { weight: random<Tensor2D>(out, 8) },
      ...{ scaling: 1.7, dropout: 0 },
    };
    const bias = i === 2 ? undefined : { bias: random<never>(out) };
    return { weight: weight(kind, out, width), ...bias, ...(adapters.includes(i) && { lora }) };
  });
  const norm = () => ({ weight: random<never>(D), bias: random<never>(D) });
  return { norms: [norm(), norm()], linears: linears as unknown as DecoderLayer['linears'] };
}

/** The layers from their parts, each a kernel of its own. */
function inParts(
  layers: readonly DecoderLayer[],
  x: Tensor3D,
  pages: readonly CachePage[],
  o: DecoderLayerOptions,
) {
  const own = layers.map((layer, i) => {
    const past = pages.map(({ rows, layers }): KvPage => ({ ...layers[i]!, rows }));
    const { x: y, ...kv } = layerInParts(layer, x, past, o);
    x = y;
    return kv;
  });
  return { x, layers: own };
}

function layerInParts(
  { norms, linears }: DecoderLayer,
  x: Tensor3D,
  pages: readonly KvPage[],
  o: DecoderLayerOptions,
) {
  const [q_proj, k_proj, v_proj, out_proj, fc1, fc2] = linears;
  const h = o.normFirst ? layerNorm(norms[0], x, o.eps) : x;
  const [q, k, v] = [linear(q_proj, h), linear(k_proj, h), linear(v_proj, h)];
  const seen = pagedAttention(q, [...pages, { k, v }], {
    numHeads: o.numHeads,
    causal: true,
    keyMask: o.keyMask,
  });
  let y = residualLinear(out_proj, seen, x);
  if (!o.normFirst) y = layerNorm(norms[0], y, o.eps);
  const f = activatedLinear(o.activation, fc1, o.normFirst ? layerNorm(norms[1], y, o.eps) : y);
  y = residualLinear(fc2, f, y);
  return { x: o.normFirst ? y : layerNorm(norms[1], y, o.eps), k, v };
}

const title = loaded.addon ? 'decoder layers' : `decoder layers (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  afterAll(() => addon.setInstructionSet(levels.at(-1)!));

  const check = (
    layers: readonly DecoderLayer[],
    B: number,
    T: number,
    o: Omit<DecoderLayerOptions, 'numHeads' | 'eps'>,
  ) => {
    const x = random<Tensor3D>(B, T, D);
    const page = (rows: number, T: number) =>
      layers.map(() => ({ k: random<Tensor3D>(rows, T, D), v: random<Tensor3D>(rows, T, D) }));
    const pages = [
      { layers: page(2, 5), rows: Int32Array.from({ length: B }, (_, b) => (b + 1) % 2) },
      { layers: page(B, 1) },
    ];
    const keyMask =
      o.keyMask &&
      tensor<Tensor2D>(
        Float32Array.from({ length: B * (6 + T) }, (_, i) => Number(i % 7 > 0)),
        [B, 6 + T],
      );
    const options = { ...o, keyMask, numHeads: H, eps: 1e-5 };
    for (let again = 0; again < 2; again++) {
      // the second time with packed copies
      const [one, parts] = [
        tidy(() => decoderLayers(layers, x, pages, options)),
        tidy(() => inParts(layers, x, pages, options)),
      ].map(({ x, layers }) => [x, ...layers.flatMap(({ k, v }) => [k, v])]) as [Tensor[], Tensor[]];
      expect(one.length).toBe(1 + 2 * layers.length);
      for (const [i, tensor] of one.entries()) {
        const [found, expected] = [tensor.dataSync(), parts[i]!.dataSync()];
        expect(expected.every(Number.isFinite)).toBe(true);
        expect(Buffer.from(found.buffer, found.byteOffset, found.byteLength)).toEqual(
          Buffer.from(expected.buffer, expected.byteOffset, expected.byteLength),
        );
      }
      dispose([one, parts]);
    }
    dispose([x, keyMask]);
    pages.forEach(({ layers }) => dispose(layers));
  };

  const cases = levels.flatMap((level): [string, Precision, Kind][] => [
    [level, 'float32', 'array'],
    [level, 'float32', 'BF16'],
    ...(/bf16|amx/.test(level)
      ? ([
          [level, 'bfloat16', 'array'],
          [level, 'bfloat16', 'BF16'],
        ] as [string, Precision, Kind][])
      : []),
    [level, 'int8', 'INT8'],
    [level, 'int8', 'INT4'],
  ]);
  it.each(cases)('%s, %s, weights %s: equals its parts', async (level, precision, kind) => {
    await useBackend('native', { precision });
    addon.setInstructionSet(level);
    const keyMask = tensor<Tensor2D>([1], [1, 1]);
    const [plain, all] = [layerOf(kind, []), layerOf(kind, [0, 1, 2, 3, 4, 5])];
    check([plain], 1, 1, { normFirst: true, activation: 'relu' });
    check([plain, all], 5, 1, { normFirst: false, activation: 'gelu', keyMask });
    check([all, plain], 1, 1, { normFirst: true, activation: 'gelu', keyMask });
    check([all, plain, all], 3, 2, { normFirst: false, activation: 'relu' });
    dispose([plain, all, keyMask]);
  });

  it('leaves adapters with a magnitude or a bias to the parts', () => {
    const layer = layerOf('array', [1]);
    expect(isPlainLayer(layer)).toBe(true);
    const [q, k, ...rest] = layer.linears;
    const withPart = (more: object) =>
      ({ ...layer, linears: [q, { ...k, lora: { ...k.lora!, ...more } }, ...rest] }) as never;
    expect(isPlainLayer(withPart({ lora_magnitude_vector: random(D) }))).toBe(false);
    expect(isPlainLayer(withPart({ lora_B: { ...k.lora!.lora_B, bias: random(D) } }))).toBe(false);
    dispose(layer);
  });

  it('refuses arrays that do not fit', async () => {
    await useBackend('native', { precision: 'float32' });
    const layer = layerOf('array', []);
    const [q, ...rest] = layer.linears;
    const wrong = { ...layer, linears: [{ ...q, weight: random(D, F) }, ...rest] } as never;
    const options = { numHeads: H, eps: 1e-5, normFirst: true, activation: 'relu' } as const;
    const x = random<Tensor3D>(1, 1, D);
    const page = (k: Tensor3D) => ({
      layers: [
        { k: x, v: x },
        { k, v: x },
      ],
    });
    expect(() => tidy(() => decoderLayers([layer, wrong], x, [page(x)], options))).toThrow(
      'NnDecoderLayers: expected weights 6',
    );
    expect(() => tidy(() => decoderLayers([layer, layer], x, [page(random(2, 1, D))], options))).toThrow(
      'native decoderLayers: k',
    );
    dispose(layer);
  });
});

/** Layers of a decoder in one call of the addon: bit for bit the result of their parts, in every precision and kind of weight. */
import {
  activatedLinear,
  attention,
  decoderLayers,
  dispose,
  isPlainLayer,
  layerNorm,
  linear,
  pagedAttention,
  residualLinear,
  tensor,
  tidy,
} from '@blip2/nn';
import type {
  CachePage,
  DecoderLayer,
  DecoderLayerOptions,
  KvPage,
  Tensor,
  Tensor2D,
  Tensor3D,
} from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, describe, expect, it } from 'vitest';
import { addon, levels, loaded } from '../spec/fixtures';
import { D, expectSame, F, H, layerCases, random, randomLinear, randomNorm } from '../spec/layers';
import type { Kind } from '../spec/layers';

function layerOf(kind: Kind, adapters: readonly number[]): DecoderLayer {
  const linears = [0, 1, 2, 3, 4, 5].map((i) => {
    const shape: [number, number] = [i === 4 ? F : D, i === 5 ? F : D];
    return randomLinear(kind, shape, { biased: i !== 2, adapted: adapters.includes(i) });
  });
  return { norms: [randomNorm(), randomNorm()], linears: linears as unknown as DecoderLayer['linears'] };
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
  const common = { numHeads: o.numHeads, causal: true, keyMask: o.keyMask };
  const seen =
    pages.length > 0 ? pagedAttention(q, [...pages, { k, v }], common) : attention(q, k, v, common);
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
    [B, T]: [B: number, T: number],
    o: Omit<DecoderLayerOptions, 'numHeads' | 'eps' | 'keyMask'> & { masked?: boolean; past?: boolean },
  ) => {
    const { masked = false, past = true, ...given } = o;
    const x = random<Tensor3D>(B, T, D);
    const page = (rows: number, T: number) =>
      layers.map(() => ({ k: random<Tensor3D>(rows, T, D), v: random<Tensor3D>(rows, T, D) }));
    const pages = past
      ? [
          { layers: page(2, 5), rows: Int32Array.from({ length: B }, (_, b) => (b + 1) % 2) },
          { layers: page(B, 1) },
        ]
      : [];
    const keys = T + (past ? 6 : 0);
    const mask = Float32Array.from({ length: B * keys }, (_, i) => Number(i % 7 > 0));
    const keyMask = masked ? tensor<Tensor2D>(mask, [B, keys]) : undefined;
    const options = { ...given, keyMask, numHeads: H, eps: 1e-5 };
    for (let again = 0; again < 2; again++) {
      // the second time with packed copies
      const [one, parts] = [
        tidy(() => decoderLayers(layers, x, pages, options)),
        tidy(() => inParts(layers, x, pages, options)),
      ].map(({ x, layers }) => [x, ...layers.flatMap(({ k, v }) => [k, v])]) as [Tensor[], Tensor[]];
      expectSame(one, parts);
      dispose([one, parts]);
    }
    dispose([x, keyMask]);
    pages.forEach(({ layers }) => dispose(layers));
  };

  it.each(layerCases)('%s, %s, weights %s: equals its parts', async (level, precision, kind) => {
    await useBackend('native', { precision });
    addon.setInstructionSet(level);
    const [plain, all] = [layerOf(kind, []), layerOf(kind, [0, 1, 2, 3, 4, 5])];
    check([plain], [1, 1], { normFirst: true, activation: 'relu' });
    check([plain, all], [5, 1], { normFirst: false, activation: 'gelu', masked: true });
    check([all, plain], [1, 1], { normFirst: true, activation: 'gelu', masked: true });
    check([all, plain, all], [3, 2], { normFirst: false, activation: 'relu' });
    check([plain, all], [1, 33], { normFirst: true, activation: 'relu', past: false });
    check([all, plain], [3, 19], { normFirst: false, activation: 'gelu', past: false, masked: true });
    dispose([plain, all]);
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

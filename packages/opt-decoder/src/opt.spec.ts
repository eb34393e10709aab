import {
  gatherRows,
  mul,
  reshape,
  rngKey,
  slice,
  sum,
  tensor,
  trainableLeaves,
  valueAndGrads,
  variable,
  watchLinears,
} from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import type { Scalar, StageOptions, Tensor, Tensor2D, Tensor3D } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  expectClose,
  expectKeyedDropout,
  get,
  namesUnder,
  readGolden,
  toTensor,
  weightTree,
} from '@blip2/golden';
import type { Golden } from '@blip2/golden';
import { decode, embedTokens, lmLogits, optWeights, parseOptConfig } from './index';
import type { KvCache, OptConfig, OptModel } from './index';

const FORWARD = 1e-5;
const BACKWARD = 1e-4;
const backends = await availableBackends();
const cases = ['opt-pre-norm', 'opt-post-norm', 'opt-bare'];
const sides = ['right', 'left'];
const [B, T, V] = [2, 7, 33];

const ints = (golden: Golden, name: string) => Int32Array.from(get(golden, name).values);

function setUp(golden: Golden, side: string) {
  const ids = ints(golden, `${side}.input_ids`);
  const attention_mask = ints(golden, `${side}.attention_mask`);
  /** Whether element i of a [B, T, width] tensor is meaningful: padding on the left has no key to attend to. */
  const counts = (width: number) => (i: number) =>
    side === 'right' || attention_mask[Math.floor(i / width)] === 1;
  return { ids, attention_mask, counts };
}

/** Columns begin … end of a row-major [B, T] host array. */
const columns = (xs: Int32Array, begin: number, end: number) =>
  Int32Array.from({ length: B * (end - begin) }, (_, i) => {
    const row = Math.floor(i / (end - begin));
    return xs[row * T + begin + (i % (end - begin))];
  });

describe.each(backends)('decode on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend)));

  describe.each(cases)('%s', (name) => {
    describe.each(sides)('padded on the %s', (side) => {
      it('equals transformers in every hidden state and the logits', async () => {
        const golden = await readGolden(import.meta.url, name);
        const cfg = parseOptConfig(golden.config);
        const p = weightTree<OptModel>(golden);
        const { ids, attention_mask, counts } = setUp(golden, side);
        const states = new Map<string, Tensor>();
        const { hidden, cache } = decode(p, embedTokens(p, ids, [B, T]), cfg, {
          attention_mask,
          tap: (state, x) => states.set(state, x),
        });
        expect(cache).toBeUndefined();
        expect([...states.keys()]).toEqual(['hidden_states.0', 'hidden_states.1', 'hidden_states.2']);
        for (const [state, x] of states)
          expectClose(x, get(golden, `${side}.${state}`), FORWARD, { keep: counts(x.shape[2] as number) });
        expectClose(lmLogits(p, hidden), get(golden, `${side}.logits`), FORWARD, { keep: counts(V) });
      });

      it.each([false, true])('equals transformers in every gradient (checkpoint %s)', async (checkpoint) => {
        const golden = await readGolden(import.meta.url, name);
        const cfg = parseOptConfig(golden.config);
        const p = weightTree<OptModel>(golden, () => true);
        const leaves = trainableLeaves(p);
        const { ids, attention_mask } = setUp(golden, side);
        const weight = toTensor(golden, `${side}.loss_weight`);
        const loss = () => {
          const { hidden } = decode(p, embedTokens(p, ids, [B, T]), cfg, { attention_mask, checkpoint });
          return sum<Scalar>(mul(lmLogits(p, hidden), weight));
        };
        const { grads } = valueAndGrads(loss, [...leaves.values()]);
        expect([...leaves.keys()].sort()).toEqual(namesUnder(golden, `${side}.grads.`).sort());
        [...leaves.keys()].forEach((leaf, i) =>
          expectClose(grads[i], get(golden, `${side}.grads.${leaf}`), BACKWARD, { floor: 0.1 }),
        );
      });

      it.each([false, true])(
        'gives the same values and gradients for selected rows as for all (checkpoint %s)',
        async (checkpoint) => {
          const golden = await readGolden(import.meta.url, name);
          const cfg = parseOptConfig(golden.config);
          const p = weightTree<OptModel>(golden, () => true);
          const { ids, attention_mask } = setUp(golden, side);
          const rows = Int32Array.of(12, 4, 5, 4); // any order, also twice
          const weight = slice(toTensor(golden, `${side}.loss_weight`), [0, 0, 0], [1, rows.length, -1]);
          const run = (selected?: Int32Array) => {
            const loss = () => {
              const o = { attention_mask, checkpoint, rows: selected };
              const { hidden } = decode(p, embedTokens(p, ids, [B, T]), cfg, o);
              const E = hidden.shape[2];
              const chosen = selected ? hidden : gatherRows(reshape<Tensor2D>(hidden, [B * T, E]), rows);
              return sum<Scalar>(mul(lmLogits(p, reshape<Tensor3D>(chosen, [1, rows.length, E])), weight));
            };
            return valueAndGrads(loss, [...trainableLeaves(p).values()]);
          };
          const [some, all] = [run(rows), run()];
          const same = (a: Tensor, b: Tensor, tolerance: number) =>
            expectClose(a, { shape: b.shape, values: b.dataSync() as Float32Array }, tolerance, {
              floor: 0.1,
            });
          same(some.value, all.value, FORWARD);
          some.grads.forEach((grad, i) => same(grad, all.grads[i], BACKWARD));
        },
      );

      it.each([[[3, 4, 5, 6, 7]], [[4, 6, 7]], [[1, 7]]])(
        'with a cache, in steps that end at %j, equals one call',
        async (ends) => {
          const golden = await readGolden(import.meta.url, name);
          const cfg = parseOptConfig(golden.config);
          const p = weightTree<OptModel>(golden);
          const { ids, attention_mask, counts } = setUp(golden, side);
          let cache: KvCache | undefined;
          let begin = 0;
          for (const end of ends) {
            const embeds = embedTokens(p, columns(ids, begin, end), [B, end - begin]);
            const step = decode(p, embeds, cfg, {
              attention_mask: columns(attention_mask, 0, end),
              cache,
              useCache: true,
            });
            const logits = lmLogits(p, step.hidden).dataSync();
            const part = columns(
              Int32Array.from({ length: B * T }, (_, i) => i),
              begin,
              end,
            );
            const all = get(golden, `${side}.logits`).values;
            const expected = Float32Array.from([...part].flatMap((at) => [...all.slice(at * V, at * V + V)]));
            expectClose(
              tensor(Float32Array.from(logits), [B, end - begin, V]),
              { shape: [B, end - begin, V], values: expected },
              FORWARD,
              { floor: 0.01, keep: (i) => counts(V)(part[Math.floor(i / V)] * V) },
            );
            expect(step.cache?.length).toBe(end);
            const page = [B, end - begin, cfg.hidden_size];
            expect(step.cache?.pages.at(-1)?.layers.map(({ k }) => k.shape)).toEqual([page, page]);
            if (cache) expect(cache.length).toBe(begin); // the old cache is unchanged
            cache = step.cache;
            begin = end;
          }
        },
      );
    });
  });

  it('gives the same token states whichever side is padded', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const cfg = parseOptConfig(golden.config);
    const p = weightTree<OptModel>(golden);
    const run = (side: string) => {
      const { ids, attention_mask } = setUp(golden, side);
      return decode(p, embedTokens(p, ids, [B, T]), cfg, { attention_mask }).hidden;
    };
    const right = slice(run('right'), [1, 0, 0], [1, 4, 16]);
    const left = slice(run('left'), [1, 3, 0], [1, 4, 16]);
    expectClose(left, { shape: [1, 4, 16], values: right.dataSync() as Float32Array }, FORWARD);
  });

  it('continues from picked rows of a cache as if the rows had been in that order', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const cfg = parseOptConfig(golden.config);
    const p = weightTree<OptModel>(golden);
    const { ids, attention_mask } = setUp(golden, 'left');
    const pick = (xs: Int32Array, rows: number[]) =>
      Int32Array.from(
        rows.flatMap((row) => [...xs.slice((row * xs.length) / B, ((row + 1) * xs.length) / B)]),
      );
    const rows = [1, 1, 0];
    const start = (order: number[]) =>
      decode(p, embedTokens(p, pick(columns(ids, 0, 6), order), [order.length, 6]), cfg, {
        attention_mask: pick(columns(attention_mask, 0, 6), order),
        useCache: true,
      }).cache as KvCache;
    const next = (cache: KvCache, cacheRows?: Int32Array) =>
      decode(p, embedTokens(p, pick(columns(ids, 6, 7), rows), [3, 1]), cfg, {
        attention_mask: pick(attention_mask, rows),
        cache,
        cacheRows,
      });
    const reordered = next(start([0, 1]), Int32Array.from(rows));
    expect(reordered.cache).toBeUndefined();
    const direct = next(start(rows)).hidden;
    expectClose(reordered.hidden, { shape: [3, 1, 16], values: direct.dataSync() as Float32Array }, FORWARD);
    expect(() => next(start([0, 1]))).toThrow('a cache of 2 layers and 3 rows, found 2 layers and 2 rows');
    expect(() => next(start([0, 1]), Int32Array.of(0, 1))).toThrow('and 2 rows (cacheRows)');
    expect(() => next(start([0, 1]), Int32Array.of(0, 1, 2))).toThrow('cacheRows in 0 … 1');
  });

  it('computes each linear layer on its own where they are watched', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const p = weightTree<OptModel>(golden);
    const { ids, attention_mask } = setUp(golden, 'right');
    const run = () => {
      const x = embedTokens(p, ids, [B, T]);
      return decode(p, x, parseOptConfig(golden.config), { attention_mask, useCache: true }).hidden;
    };
    const seen: number[] = [];
    const watched = watchLinears((weight) => void seen.push(weight.id), run);
    const ofLayers = p.model.decoder.layers.flatMap(({ self_attn: a, fc1, fc2 }) =>
      [a.q_proj, a.k_proj, a.v_proj, a.out_proj, fc1, fc2].map(({ weight }) => weight.id),
    );
    expect(seen).toEqual(ofLayers);
    expect(watched.dataSync()).toEqual(run().dataSync());
  });

  it('ties lm_head to the token embeddings, unless the checkpoint has one', async () => {
    const golden = await readGolden(import.meta.url, 'opt-bare');
    const p = weightTree<OptModel>(golden);
    const hidden = tensor<Tensor3D>(
      Float32Array.from({ length: 16 }, (_, i) => i - 7),
      [1, 1, 16],
    );
    const own = lmLogits(p, hidden).dataSync();
    const tied = lmLogits({ model: p.model }, hidden).dataSync();
    const table = get(golden, 'weights.model.decoder.embed_tokens.weight').values;
    const row2 = table.slice(32, 48).reduce((total, w, i) => total + w * (i - 7), 0);
    expect(tied[2]).toBeCloseTo(row2, 5);
    expect(own).not.toEqual(tied);
  });

  it('gives a leaf the same gradient when all others are frozen', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const cfg = parseOptConfig(golden.config);
    const name = 'model.decoder.layers.0.self_attn.v_proj.weight';
    const p = weightTree<OptModel>(golden, (leaf) => leaf === name);
    const { ids, attention_mask } = setUp(golden, 'right');
    const weight = toTensor(golden, 'right.loss_weight');
    const loss = () => {
      const { hidden } = decode(p, embedTokens(p, ids, [B, T]), cfg, { attention_mask, checkpoint: true });
      return sum<Scalar>(mul(lmLogits(p, hidden), weight));
    };
    const { grads } = valueAndGrads(loss, [...trainableLeaves(p).values()]);
    expect(grads).toHaveLength(1);
    expectClose(grads[0], get(golden, `right.grads.${name}`), BACKWARD);
  });

  it('passes gradients to the input embeddings, with or without checkpointing', async () => {
    const golden = await readGolden(import.meta.url, 'opt-post-norm');
    const cfg = parseOptConfig(golden.config);
    const p = weightTree<OptModel>(golden);
    const { ids, attention_mask } = setUp(golden, 'left');
    const weight = toTensor(golden, 'left.loss_weight');
    const embeds = variable(embedTokens(p, ids, [B, T])) as unknown as Tensor3D;
    const gradient = (checkpoint: boolean) => {
      const loss = () => {
        const { hidden } = decode(p, embeds, cfg, { attention_mask, checkpoint });
        return sum<Scalar>(mul(lmLogits(p, hidden), weight));
      };
      return valueAndGrads(loss, [embeds]).grads[0];
    };
    const expected = { shape: [B, T, 8], values: gradient(false).dataSync() as Float32Array };
    expectClose(gradient(true), expected, 1e-6);
    const padRow = expected.values.slice(T * 8, T * 8 + 3 * 8); // row 1 begins with three pads
    expect(padRow).toEqual(new Float32Array(24));
  });

  describe('dropout', () => {
    const setUpRun = async (rates: Partial<OptConfig>) => {
      const golden = await readGolden(import.meta.url, 'opt-pre-norm');
      const p = weightTree<OptModel>(golden);
      const { ids, attention_mask } = setUp(golden, 'right');
      const cfg = { ...parseOptConfig(golden.config), dropout: 0, attention_dropout: 0, ...rates };
      return (o: StageOptions & { useCache?: boolean }, model = p) =>
        Array.from(
          decode(model, embedTokens(p, ids, [B, T]), cfg, { attention_mask, ...o }).hidden.dataSync(),
        );
    };

    it.each([{ dropout: 0.3 }, { attention_dropout: 0.3 }])(
      'of %j acts only with a key, always the same for one key, with or without checkpointing',
      async (rates) => expectKeyedDropout(await setUpRun(rates)),
    );

    it('acts also where a cache is begun', async () => {
      const run = await setUpRun({ dropout: 0.3 });
      const begun = { dropout: rngKey(1), useCache: true };
      expect(run(begun)).toEqual(run({ dropout: rngKey(1) }));
    });

    it('of rate 0 changes nothing', async () => {
      const run = await setUpRun({});
      expect(run({ dropout: rngKey(1) })).toEqual(run({}));
    });

    it.each(['q_proj', 'k_proj', 'v_proj', 'out_proj'] as const)(
      'of an adapter on %s acts',
      async (target) => {
        const run = await setUpRun({});
        const p = weightTree<OptModel>(await readGolden(import.meta.url, 'opt-pre-norm'));
        const lora = {
          lora_A: {
            weight: tensor(
              Float32Array.from({ length: 32 }, (_, i) => Math.sin(i)),
              [2, 16],
            ),
          },
          lora_B: {
            weight: tensor(
              Float32Array.from({ length: 32 }, (_, i) => Math.cos(i)),
              [16, 2],
            ),
          },
          scaling: 1,
          dropout: 0.5,
        };
        const layers = p.model.decoder.layers.map((layer) => ({
          ...layer,
          self_attn: { ...layer.self_attn, [target]: { ...layer.self_attn[target], lora } },
        }));
        const adapted = { model: { decoder: { ...p.model.decoder, layers } } } as OptModel;
        expect(run({}, adapted)).not.toEqual(run({}));
        expect(run({ dropout: rngKey(1) }, adapted)).not.toEqual(run({}, adapted));
      },
    );
  });

  it('refuses inputs that do not fit, with what was expected and found', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const cfg = parseOptConfig(golden.config);
    const p = weightTree<OptModel>(golden);
    const { ids, attention_mask } = setUp(golden, 'right');
    const embeds = embedTokens(p, ids, [B, T]);
    const ones = (n: number) => new Int32Array(n).fill(1);
    expect(() => embedTokens(p, ids, [B, 6])).toThrow('embedTokens: expected 2 × 6 = 12 ids, found 14');
    expect(() => embedTokens(p, Int32Array.of(3, 4, 5, 33), [2, 2])).toThrow(
      'embedTokens: expected ids in 0 … 32, found 33 at row 1, column 1',
    );
    expect(() => decode(p, embeds, cfg, { attention_mask: ones(13) })).toThrow(
      'decode: expected attention_mask [2, 7] (0 cached + 7 new positions), found 13 values',
    );
    expect(() => decode(p, embeds, cfg, { attention_mask: ones(14).fill(2, 0, 1) })).toThrow(
      'decode: expected attention_mask of 0 and 1, found 2',
    );
    expect(() => decode(p, embeds, { ...cfg, word_embed_proj_dim: 8 }, { attention_mask })).toThrow(
      'decode: expected inputs_embeds [B, T, 8] (word_embed_proj_dim), found [2,7,16]',
    );
    expect(() => decode(p, embeds, { ...cfg, num_hidden_layers: 3 }, { attention_mask })).toThrow(
      'decode: expected 3 layers (num_hidden_layers), found 2',
    );
    expect(() => decode(p, embeds, { ...cfg, do_layer_norm_before: false }, { attention_mask })).toThrow(
      'decode: expected no model.decoder.final_layer_norm by the config, found one',
    );
    for (const [rows, found] of [[Int32Array.of(3, 14), '14'] as const, [new Int32Array(0), 'none'] as const])
      expect(() => decode(p, embeds, cfg, { attention_mask, rows })).toThrow(
        `decode: expected at least one of the rows 0 … 13, found ${found}`,
      );
    const long = embedTokens(p, new Int32Array(26).fill(5), [2, 13]);
    expect(() => decode(p, long, cfg, { attention_mask: ones(26) })).toThrow(
      'decode: expected at most 12 positions (max_position_embeddings), found 13 in row 0',
    );
    const { cache } = decode(p, embeds, cfg, { attention_mask, useCache: true });
    const three = embedTokens(p, new Int32Array(3).fill(5), [3, 1]);
    expect(() => decode(p, three, cfg, { attention_mask: ones(24), cache })).toThrow(
      'decode: expected a cache of 2 layers and 3 rows, found 2 layers and 2 rows',
    );
  });
});

describe('optWeights', () => {
  it.each(cases)('lists the tensors of %s with their shapes', async (name) => {
    const golden = await readGolden(import.meta.url, name);
    const table = optWeights(parseOptConfig(golden.config), 'weights.');
    const expected = namesUnder(golden, 'weights.').map(
      (n) => `weights.${n} ${get(golden, `weights.${n}`).shape}`,
    );
    expect(table.map(([n, shape]) => `${n} ${shape}`).sort()).toEqual(expected.sort());
  });

  it('has as many parameters as OPT-2.7b and OPT-6.7b in BLIP-2', () => {
    const count = (hidden_size: number, ffn_dim: number) =>
      optWeights(
        parseOptConfig({
          hidden_size,
          ffn_dim,
          vocab_size: 50304,
          num_hidden_layers: 32,
          num_attention_heads: 32,
        }),
      ).reduce((n, [, shape]) => n + shape.reduce((a, b) => a * b, 1), 0);
    expect(count(2560, 10240)).toBe(2_651_678_720);
    expect(count(4096, 16384)).toBe(6_658_605_056);
  });
});

describe('parseOptConfig', () => {
  it('has the defaults of OPTConfig and ignores other keys', () => {
    expect(parseOptConfig({ model_type: 'opt', prefix: '</s>', init_std: 0.02 })).toEqual({
      model_type: 'opt',
      vocab_size: 50272,
      hidden_size: 768,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      ffn_dim: 3072,
      max_position_embeddings: 2048,
      do_layer_norm_before: true,
      _remove_final_layer_norm: false,
      word_embed_proj_dim: 768,
      dropout: 0.1,
      attention_dropout: 0,
      activation_function: 'relu',
      enable_bias: true,
      tie_word_embeddings: true,
      pad_token_id: 1,
      bos_token_id: 2,
      eos_token_id: 2,
    });
  });

  it('takes hidden_size for an absent word_embed_proj_dim, and a list of one end token', () => {
    const cfg = parseOptConfig({ hidden_size: 2560, num_attention_heads: 32, eos_token_id: [50118] });
    expect(cfg.word_embed_proj_dim).toBe(2560);
    expect(cfg.eos_token_id).toBe(50118);
  });

  it.each([
    [{ model_type: 't5' }, 'text_config.model_type: expected "opt" (nothing else is supported), found "t5"'],
    [{ layer_norm_elementwise_affine: false }, 'text_config.layer_norm_elementwise_affine: expected true'],
    [{ layerdrop: 0.1 }, 'text_config.layerdrop: expected 0 (nothing else is supported), found 0.1'],
    [
      { activation_function: 'silu' },
      'text_config.activation_function: expected "relu" or "gelu", found "silu"',
    ],
    [{ eos_token_id: [2, 3] }, 'text_config.eos_token_id: expected one token id, found [2,3]'],
    [{ num_attention_heads: 7 }, 'text_config.hidden_size: expected a multiple of num_attention_heads (7)'],
    [{ dropout: 1.5 }, 'text_config.dropout: expected a rate in [0, 1), found 1.5'],
    [{ vocab_size: 1.5 }, 'text_config.vocab_size: expected a positive integer, found 1.5'],
    [{ enable_bias: 'yes' }, 'text_config.enable_bias: expected true or false, found "yes"'],
    [null, 'text_config: expected an object, found null'],
  ])('refuses %j', (json, message) => {
    expect(() => parseOptConfig(json)).toThrow(message);
  });
});

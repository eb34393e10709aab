/** OPT as a `LanguageModel`: the loss and step-by-step generation agree with the logits. */
import { crossEntropy, gatherRows, memory, reshape, tidy } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type { Tensor2D, Tensor3D } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import { get, readGolden, weightTree } from '@blip2/golden';
import type { Golden } from '@blip2/golden';
import { opt } from './index';
import type { OptConfig, OptModel, OptState } from './index';

let [golden, p, cfg] = [undefined as unknown as Golden, {} as OptModel, {} as OptConfig];
beforeAll(async () => {
  await useBackend('cpu');
  golden = await readGolden(import.meta.url, 'opt-pre-norm');
  p = weightTree<OptModel>(golden);
  cfg = opt.parse(golden.config, 'config');
});

const shape = [2, 7] as const;
const [B, T] = shape;
const batch = (side: 'left' | 'right') => ({
  ids: Int32Array.from(get(golden, `${side}.input_ids`).values),
  rows: {
    attention_mask: Int32Array.from(get(golden, `${side}.attention_mask`).values),
    shape: [...shape] as [number, number],
  },
});
/** Scores [B, T, V] of every position. */
function logitsOf({ ids, rows }: ReturnType<typeof batch>): Tensor3D {
  return opt.logits(p, cfg, opt.embed(p, ids, rows.shape), rows, {});
}
const firstColumns = (values: Int32Array, n: number) =>
  Int32Array.from({ length: B * n }, (_, i) => values[Math.floor(i / n) * T + (i % n)]);

describe('opt', () => {
  it('gives the same scores step by step as for whole rows, also with reordered rows, and frees its state', async () => {
    const { ids, rows } = batch('left');
    const whole = await logitsOf({ ids, rows }).array();
    const before = memory().numTensors;
    const prompt = tidy(() => opt.embed(p, firstColumns(ids, T - 1), [B, T - 1]));
    const first = opt.start(p, cfg, prompt, firstColumns(rows.attention_mask, T - 1));
    const from = Int32Array.of(1, 0);
    const last = from.map((row) => ids[row * T + T - 1]);
    const next = opt.step(p, cfg, first.state, last, from);
    const found = [await first.scores.array(), await next.scores.array()];
    [0, 1].forEach((b) => {
      whole[b][T - 2].forEach((x, v) => expect(found[0][b][v]).toBeCloseTo(x, 5));
      whole[from[b]][T - 1].forEach((x, v) => expect(found[1][b][v]).toBeCloseTo(x, 5));
    });
    opt.free(next.state);
    [prompt, first.scores, next.scores].forEach((x) => x.dispose());
    expect(memory().numTensors).toBe(before);
  });

  it('joins states: each row goes on as before, and what no row sees any more is freed', async () => {
    const { ids, rows } = batch('left');
    const before = memory().numTensors;
    const begin = (n: number) => {
      const prompt = tidy(() => opt.embed(p, firstColumns(ids, n), [B, n]));
      const { state, scores } = opt.start(p, cfg, prompt, firstColumns(rows.attention_mask, n));
      [prompt, scores].forEach((x) => x.dispose());
      return state;
    };
    const all = [0, 1];
    const step = (state: OptState, next: number[], from: number[]) => {
      const { state: after, scores } = opt.step(p, cfg, state, Int32Array.from(next), Int32Array.from(from));
      const values = scores.arraySync();
      scores.dispose();
      return { after, values };
    };
    const apart = [4, 6].map((n) => {
      const { after, values } = step(begin(n), [3, 4], all);
      opt.free(after);
      return values;
    });
    const held = memory().numTensors;
    const { after, values } = step(opt.join([begin(4), begin(6)]), [3, 4, 3, 4], [0, 1, 2, 3]);
    const joined = memory().numTensors;
    apart.flat().forEach((row, b) => row.forEach((x, v) => expect(values[b][v]).toBeCloseTo(x, 5)));
    const { after: left } = step(after, [5], [3]);
    const layers = cfg.num_hidden_layers;
    expect([joined - held, memory().numTensors - held]).toEqual([3 * 2 * layers, 3 * 2 * layers]); // one page freed, one new
    opt.free(left);
    expect(memory().numTensors).toBe(before);
  });

  it('knows how many layers run before a tensor is used', () => {
    const before = (name: string) => opt.below!.layersBefore({ ...cfg, num_hidden_layers: 32 }, name);
    expect(before('model.decoder.layers.24.self_attn.q_proj.lora.lora_A.weight')).toBe(24);
    expect(before('model.decoder.layers.3.fc1')).toBe(3);
    for (const name of ['embed_tokens.weight', 'embed_positions.weight', 'project_in.weight'])
      expect(before(`model.decoder.${name}`)).toBe(0);
    for (const name of ['model.decoder.final_layer_norm.bias', 'model.decoder.project_out', 'lm_head'])
      expect(before(name)).toBe(31);
  });

  it('keeps its state after an enclosing tidy', () => {
    const { ids, rows } = batch('left');
    let state: unknown;
    tidy(() => ({ state } = opt.start(p, cfg, opt.embed(p, ids, rows.shape), rows.attention_mask)).scores);
    expect(() => opt.step(p, cfg, state as never, Int32Array.of(4, 5), Int32Array.of(0, 1))).not.toThrow();
  });

  it('has the mean loss of the labelled tokens, each predicted at the position before it', async () => {
    const { ids, rows } = batch('right');
    const labels = ids.map((id, i) => (i % T < 2 || rows.attention_mask[i] === 0 ? -100 : id));
    const at = [...labels.keys()].filter((i) => i % T < T - 1 && labels[i + 1] >= 0);
    const flat = reshape<Tensor2D>(logitsOf({ ids, rows }), [B * T, cfg.vocab_size]);
    const expected = crossEntropy(
      gatherRows(flat, Int32Array.from(at)),
      Int32Array.from(at, (i) => labels[i + 1]),
    );
    const kept = [...ids.keys()].filter((i) => rows.attention_mask[i] === 1);
    const lengths = Array.from({ length: B }, (_, b) => kept.filter((i) => Math.floor(i / T) === b).length);
    const packing = {
      ...{ prefixes: 0, prefixLength: 0, pictures: new Int32Array(B) },
      starts: Int32Array.of(0, lengths[0], lengths[0] + lengths[1]),
    };
    const targets = {
      labels: Int32Array.from(at, (i) => labels[i + 1]),
      predictors: Int32Array.from(at, (i) => kept.indexOf(i)),
    };
    const packed = gatherRows(
      p.model.decoder.embed_tokens.weight,
      Int32Array.from(kept, (i) => ids[i]),
    );
    const loss = opt.loss(p, cfg, packed, { packing, ...targets }, {});
    expect((await loss.data())[0]).toBeCloseTo((await expected.data())[0], 5);
  });

  it('ties the head to the embeddings if the configuration does', () => {
    expect(opt.ties({ ...cfg, tie_word_embeddings: true }, 'a.')).toEqual([
      { tensor: 'a.model.decoder.embed_tokens.weight', alias: 'a.lm_head.weight' },
    ]);
    expect(opt.ties({ ...cfg, tie_word_embeddings: false }, 'a.')).toEqual([]);
  });
});

/** T5 as a `LanguageModel`: the loss and step-by-step generation agree with the logits. */
import { memory, reshape, tidy, trainableLeaves, valueAndGrads } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import type { Tensor2D } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import { expectClose, get, readGolden, weightTree } from '@blip2/golden';
import type { Golden } from '@blip2/golden';
import { t5 } from './index';
import type { T5Model } from './index';

const shape: [number, number] = [2, 7];
const [B, T] = shape;
const ints = (golden: Golden, name: string) => Int32Array.from(get(golden, name).values);

async function setUp(side: string, trains = false) {
  const golden = await readGolden(import.meta.url, 't5-blip2');
  const cfg = t5.parse(golden.config, 'config');
  const p = weightTree<T5Model>(golden, (name) => trains && name.includes('EncDecAttention'));
  const rows = {
    attention_mask: ints(golden, `${side}.attention_mask`),
    labels: ints(golden, 'labels'),
    shape,
  };
  const embeds = () => t5.embed(p, ints(golden, `${side}.input_ids`), shape);
  return { golden, cfg, p, rows, embeds };
}

describe.each(await availableBackends())('t5 on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend, { precision: 'float32' })));

  it.each(['left', 'right', 'inside'])(
    'gives the same scores step by step as for whole rows, padded on the %s, also with reordered, repeated and dropped rows',
    async (side) => {
      const { cfg, p, rows, embeds } = await setUp(side);
      const targets = [3, 9, 4, 7, 30, 12, 8];
      const labels = Int32Array.from([...targets, ...targets.map((id) => (id * 5) % 33)]);
      const whole = await t5.logits(p, cfg, embeds(), { ...rows, labels }, {}).array();
      const before = memory().numTensors;
      const prompt = tidy(embeds);
      let { state, scores } = t5.start(p, cfg, prompt, rows.attention_mask);
      const orders = [[1, 0], [1, 1, 0], [2, 0], [0, 1, 1], [1], [0]];
      let of = [0, 1]; // the whole row of each row of the state
      for (let step = 0; ; step++) {
        const found = await scores.array();
        scores.dispose();
        found.forEach((row, b) => row.forEach((x, v) => expect(x).toBeCloseTo(whole[of[b]][step][v], 4)));
        if (step === orders.length) break;
        const from = orders[step];
        of = from.map((row) => of[row]);
        const ids = Int32Array.from(of, (row) => labels[row * targets.length + step]);
        ({ state, scores } = t5.step(p, cfg, state, ids, Int32Array.from(from)));
      }
      t5.free(state);
      prompt.dispose();
      expect(memory().numTensors).toBe(before);
    },
  );

  it('joins states: each row goes on as before, at its own distances', async () => {
    const { cfg, p, rows, embeds } = await setUp('right');
    const before = memory().numTensors;
    /** A state after `ids`, one step for both rows each. */
    const begin = (ids: number[]) => {
      const prompt = tidy(embeds);
      let { state, scores } = t5.start(p, cfg, prompt, rows.attention_mask);
      for (const id of ids) {
        scores.dispose();
        ({ state, scores } = t5.step(p, cfg, state, Int32Array.of(id, id + 1), Int32Array.of(0, 1)));
      }
      [prompt, scores].forEach((x) => x.dispose());
      return state;
    };
    const starts = [[3, 9, 4, 7, 12], [], [8]];
    const ids = starts.map((_, i) => [5 + i, 9 + i]);
    const apart = starts.map((start, i) =>
      t5.step(p, cfg, begin(start), Int32Array.from(ids[i]), Int32Array.of(0, 1)),
    );
    const joined = t5.join(starts.map(begin));
    const { state, scores } = t5.step(
      p,
      cfg,
      joined,
      Int32Array.from(ids.flat()),
      Int32Array.of(0, 1, 2, 3, 4, 5),
    );
    const found = scores.arraySync();
    const expected = apart.flatMap((one) => one.scores.arraySync());
    expected.forEach((row, b) => row.forEach((x, v) => expect(found[b][v]).toBeCloseTo(x, 4)));
    scores.dispose();
    apart.forEach((one) => one.scores.dispose());
    [state, ...apart.map((one) => one.state)].forEach((one) => t5.free(one));
    expect(memory().numTensors).toBe(before);
  });

  it("has transformers' loss, and the same gradients with checkpoints", async () => {
    const { golden, cfg, p, rows, embeds } = await setUp('right', true);
    const leaves = [...trainableLeaves(p).values()];
    const run = (checkpoint: boolean) =>
      valueAndGrads(() => {
        const x = reshape<Tensor2D>(embeds(), [B * T, cfg.hidden_size]);
        return t5.loss(p, cfg, x, rows, { checkpoint });
      }, leaves);
    const before = memory().numTensors;
    const [plain, recomputed] = [run(false), run(true)];
    expectClose(plain.value, get(golden, 'right.loss'), 1e-5);
    for (const [i, grad] of plain.grads.entries())
      expectClose(
        recomputed.grads[i],
        { shape: grad.shape, values: (await grad.data()) as Float32Array },
        1e-5,
      );
    [plain, recomputed].forEach(({ value, grads }) => [value, ...grads].forEach((x) => x.dispose()));
    expect(memory().numTensors).toBe(before);
  });
});

describe('t5', () => {
  beforeAll(async () => void (await useBackend('cpu')));

  it('keeps its state after an enclosing tidy', async () => {
    const { cfg, p, rows, embeds } = await setUp('left');
    let state: unknown;
    tidy(() => ({ state } = t5.start(p, cfg, embeds(), rows.attention_mask)).scores);
    expect(() => t5.step(p, cfg, state as never, Int32Array.of(4, 5), Int32Array.of(0, 1))).not.toThrow();
  });

  it('ties both embeddings always, and the head if the configuration does', async () => {
    const { cfg } = await setUp('left');
    const tensor = 'a.shared.weight';
    const embeddings = ['encoder', 'decoder'].map((name) => ({
      tensor,
      alias: `a.${name}.embed_tokens.weight`,
    }));
    expect(t5.ties({ ...cfg, tie_word_embeddings: false }, 'a.')).toEqual(embeddings);
    expect(t5.ties({ ...cfg, tie_word_embeddings: true }, 'a.')).toEqual([
      ...embeddings,
      { tensor, alias: 'a.lm_head.weight' },
    ]);
  });
});

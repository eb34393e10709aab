/** Packed rows compared with transformers, and with `decode` of whole rows. */
import { gatherRows, reshape, slice, tensor } from '@blip2/nn';
import type { Packing, Tensor2D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { expectClose, get, readGolden, weightTree } from '@blip2/golden';
import type { Golden } from '@blip2/golden';
import { decode, decodePacked, embedTokens, packedHidden, parseOptConfig } from './index';
import type { OptModel } from './index';

const [B, T] = [2, 7];
const ints = (golden: Golden, name: string) => Int32Array.from(get(golden, name).values);

/** The fixture's rows without their pads. */
function packedRows(golden: Golden, side: string) {
  const mask = ints(golden, `${side}.attention_mask`);
  const kept = Int32Array.from([...mask.keys()].filter((i) => mask[i] === 1));
  const first = kept.filter((i) => i < T).length;
  const packing: Packing = {
    prefixes: 0,
    prefixLength: 0,
    pictures: new Int32Array(B),
    starts: Int32Array.of(0, first, kept.length),
  };
  return { kept, packing, ids: Int32Array.from(kept, (i) => ints(golden, `${side}.input_ids`)[i]) };
}

describe.each(await availableBackends())('decodePacked on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend, { precision: 'float32' })));

  it.each(['opt-pre-norm', 'opt-post-norm', 'opt-bare'])(
    'equals transformers in the rows without pads, in one call or continued from a layer: %s',
    async (name) => {
      const golden = await readGolden(import.meta.url, name);
      const [cfg, p] = [parseOptConfig(golden.config), weightTree<OptModel>(golden)];
      for (const side of ['left', 'right']) {
        const { kept, packing, ids } = packedRows(golden, side);
        const table = p.model.decoder.embed_tokens.weight;
        const embeds = gatherRows(table, ids);
        const { values, shape } = get(golden, `${side}.hidden_states.2`);
        const E = shape[2];
        const expected = {
          shape: [kept.length, E],
          values: Float32Array.from([...kept].flatMap((i) => [...values.slice(i * E, (i + 1) * E)])),
        };
        expectClose(decodePacked(p, embeds, cfg, { packing }), expected, 1e-5);
        for (const from of [0, 1, 2]) {
          const x = packedHidden(p, cfg, embeds, packing, { depth: from });
          if (from < 2) expectClose(decodePacked(p, x, cfg, { packing, from }), expected, 1e-5);
        }
        const rows = Int32Array.of(3, 0, 3);
        const some = decodePacked(p, embeds, cfg, { packing, rows });
        const all = decodePacked(p, embeds, cfg, { packing });
        expectClose(some, { shape: [3, E], values: gatherRows(all, rows).dataSync() as Float32Array }, 1e-6);
      }
    },
  );

  it('continues one prefix by several texts as whole rows', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const [cfg, p] = [parseOptConfig(golden.config), weightTree<OptModel>(golden)];
    const rows = [3, 4, 5, 6, 7, 3, 4, 5, 9, 8]; // two rows that begin alike
    const whole = decode(p, embedTokens(p, Int32Array.from(rows), [2, 5]), cfg, {
      attention_mask: new Int32Array(10).fill(1),
    }).hidden;
    const embeds = embedTokens(p, Int32Array.of(3, 4, 5, 6, 7, 9, 8), [1, 7]);
    const packing = {
      ...{ prefixes: 1, prefixLength: 3 },
      ...{ pictures: Int32Array.of(0, 0), starts: Int32Array.of(3, 5, 7) },
    };
    const hidden = decodePacked(p, reshape<Tensor2D>(embeds, [7, 16]), cfg, { packing });
    const last = slice(reshape<Tensor2D>(whole, [10, 16]), [8, 0], [2, 16]);
    expectClose(
      slice(hidden, [5, 0], [2, 16]),
      { shape: [2, 16], values: last.dataSync() as Float32Array },
      1e-5,
    );
  });

  it('refuses a row with more positions than the model has', async () => {
    const golden = await readGolden(import.meta.url, 'opt-pre-norm');
    const [cfg, p] = [parseOptConfig(golden.config), weightTree<OptModel>(golden)];
    const most = cfg.max_position_embeddings;
    const packing = {
      ...{ prefixes: 1, prefixLength: most - 1, pictures: Int32Array.of(0, 0) },
      starts: Int32Array.of(most - 1, most, most + 2),
    };
    const x = tensor<Tensor2D>(new Float32Array((most + 2) * 16), [most + 2, 16]);
    expect(() => decodePacked(p, x, cfg, { packing })).toThrow(
      `decode: expected at most ${most} positions (max_position_embeddings), found ${most + 1} in row 1; shorten the text`,
    );
  });
});

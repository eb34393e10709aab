// OPT over packed rows: captions of one picture share its positions, and there are no pads. The rows are those of `decode`.
// N positions, D hidden size, E embedding width, L layers.
import { add, checkpoint, dispose, embedding, linear, packedAttention, site, tidy } from '@blip2/nn';
import type { Packing, StageOptions, Tensor2D } from '@blip2/nn';
import type { OptConfig } from './config';
import { block, norm } from './layer';
import type { LayerContext } from './layer';
import { POSITION_OFFSET } from './opt';
import type { OptModel } from './opt';

export interface PackedOptions extends StageOptions {
  packing: Packing;
  /** The layer that x is the input of. Default: x [N, E] are embeddings. */
  from?: number;
  /** The positions [M] to return, which may repeat; the last layer computes the others only up to attention. */
  rows?: Int32Array;
}

/**
 * Runs packed rows through the decoder: x [N, E], or with `from` [N, D] → hidden [N, E], with `rows` [M, E], the input of
 * `lmLogits`. As `decode` of each row. Dropout has one mask for the shared positions of a picture.
 * @throws Error if a row is too long, or the packing does not fit
 */
export function decodePacked(p: OptModel, x: Tensor2D, cfg: OptConfig, o: PackedOptions): Tensor2D {
  const { layers, final_layer_norm, project_out } = p.model.decoder;
  let y = o.from === undefined ? positioned(p, x, cfg, o.packing) : x;
  y = runLayers(p, y, cfg, o, [o.from ?? 0, layers.length]);
  if (final_layer_norm) y = norm(final_layer_norm, y);
  if (project_out) y = linear(project_out, y); // [.., E]
  o.tap?.(`hidden_states.${layers.length}`, y);
  return y;
}

/** The input of layer `depth`, as in evaluation: embeddings x [N, E] → [N, D]. */
export function packedHidden(
  p: OptModel,
  cfg: OptConfig,
  x: Tensor2D,
  packing: Packing,
  { depth, tap }: Pick<StageOptions, 'tap'> & { depth: number },
): Tensor2D {
  return runLayers(p, positioned(p, x, cfg, packing), cfg, { packing, tap }, [0, depth]);
}

/** The input of the first layer: embeddings [N, E] → [N, D]. */
function positioned(p: OptModel, x: Tensor2D, cfg: OptConfig, packing: Packing): Tensor2D {
  const { embed_positions, project_in } = p.model.decoder;
  const rows = positionRows(packing, cfg);
  const positions = embedding<Tensor2D>(embed_positions, rows, [rows.length]); // [N, D]
  return add(project_in ? linear(project_in, x) : x, positions);
}

function runLayers(
  p: OptModel,
  x: Tensor2D,
  cfg: OptConfig,
  { packing, rows, dropout, checkpoint: recompute, tap }: PackedOptions,
  [from, to]: [number, number],
): Tensor2D {
  const { layers } = p.model.decoder;
  const attend: LayerContext<Tensor2D>['attend'] = (q, k, v, dropout) =>
    packedAttention(q, k, v, packing, { numHeads: cfg.num_attention_heads, dropout });
  let y = x;
  tap?.(`hidden_states.${from}`, y);
  for (let i = from; i < to; i++) {
    const last = i + 1 === layers.length;
    const context = { attend, key: site(dropout, i), rows: last ? rows : undefined };
    const run = (h: Tensor2D) => block(layers[i], h, cfg, context).x;
    const next = recompute ? checkpoint(run, [y], layers[i]) : tidy(() => run(y));
    if (i > from && !tap) dispose(y); // the tape keeps its own references
    y = next;
    if (!last) tap?.(`hidden_states.${i + 1}`, y);
  }
  return y;
}

/** Row of the position table for each position: 2, 3, … in a prefix, and on from there in the texts. */
function positionRows({ prefixes: P, prefixLength: Q, starts }: Packing, cfg: OptConfig): Int32Array {
  const rows = new Int32Array(starts[starts.length - 1]);
  const most = cfg.max_position_embeddings;
  for (let i = 0; i < P * Q; i++) rows[i] = (i % Q) + POSITION_OFFSET;
  for (let b = 0; b + 1 < starts.length; b++) {
    for (let i = starts[b]; i < starts[b + 1]; i++) rows[i] = Q + i - starts[b] + POSITION_OFFSET;
    const length = Q + starts[b + 1] - starts[b];
    if (length > most)
      throw new Error(
        `decode: expected at most ${most} positions (max_position_embeddings), found ${length} in row ${b}; ` +
          'shorten the text or generate fewer tokens',
      );
  }
  return rows;
}

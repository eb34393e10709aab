// Position embeddings for images whose size differs from the checkpoint's.
// Reference: transformers 5, `Blip2VisionEmbeddings.interpolate_pos_encoding`: torch's bicubic, align_corners false, no antialiasing.
// N = 1 + S² positions of the checkpoint, CLS first; G × W patches of the image, D hidden size.
import { concat, linear, reshape, slice, tensor, transpose } from '@blip2/nn';
import type { Tensor2D, Tensor3D } from '@blip2/nn';

/** The parameter of Keys' cubic convolution, as in torch (PIL uses −0.5). */
const A = -0.75;

/** Resizes the grid of positions to G × W, [1, N, D] → [1, 1 + G·W, D]. CLS, and a grid of that size, stay as they are. */
export function interpolatePositions(position_embedding: Tensor3D, G: number, W: number): Tensor3D {
  const [, N, D] = position_embedding.shape;
  const side = Math.sqrt(N - 1);
  if (G === side && W === side) return position_embedding;
  const cls = slice(position_embedding, [0, 0, 0], [1, 1, D]);
  const grid = reshape<Tensor2D>(slice(position_embedding, [0, 1, 0], [1, N - 1, D]), [N - 1, D]);
  const weights = tensor<Tensor2D>(gridWeights(side, G, W), [G * W, N - 1]);
  const stretched = linear({ weight: transpose(grid, [1, 0]) }, weights); // [G·W, D]
  return concat([cls, reshape<Tensor3D>(stretched, [1, G * W, D])], 1);
}

/** Interpolation weights of the side² old positions for each of the G·W new ones, row-major [G·W, side²]. */
function gridWeights(side: number, G: number, W: number): Float32Array {
  const [rows, columns] = [lineWeights(side, G), lineWeights(side, W)];
  const weights = new Float32Array(G * W * side * side);
  let at = 0;
  for (const row of rows)
    for (const column of columns) for (const r of row) for (const c of column) weights[at++] = r * c;
  return weights;
}

/** Weights of `from` old positions on a line for each of `to` new ones; beyond the ends the outermost one is repeated. */
function lineWeights(from: number, to: number): Float64Array[] {
  return Array.from({ length: to }, (_, i) => {
    const x = ((i + 0.5) * from) / to - 0.5;
    const first = Math.floor(x) - 1;
    const weights = new Float64Array(from);
    for (let tap = first; tap < first + 4; tap++)
      weights[Math.min(from - 1, Math.max(0, tap))] += cubic(Math.abs(x - tap));
    return weights;
  });
}

function cubic(distance: number): number {
  const d = distance;
  if (d <= 1) return ((A + 2) * d - (A + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * A : 0;
}

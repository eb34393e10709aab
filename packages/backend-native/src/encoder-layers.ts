// The layers of an encoder without a backward pass, in one call of the addon.
import type { NnKernel } from './kernel';
import { layerArguments } from './layer-arguments';

export const encoderLayers: NnKernel<'NnEncoderLayers'> = (inputs, attrs, backend) => {
  const { numHeads, eps, activation } = attrs;
  const [B, T, D] = inputs.x.shape as [number, number, number];
  const [M, F] = [B * T, inputs.weights[2]!.shape[0]!];
  const shapes = [
    [3 * D, D],
    [D, D],
    [F, D],
    [D, F],
  ];
  const { norms, linears } = layerArguments('NnEncoderLayers', inputs, attrs, { M, shapes }, backend);
  const rank = Math.max(0, ...inputs.lora_A.map(({ shape }) => shape[0]!));
  const width = 2 * D + Math.max(3 * D, F) + rank + 2 + numHeads; // of the room for intermediate results
  const scale = (D / numHeads) ** -0.5;
  const before = [backend.floats(inputs.x), norms, eps, activation, ...linears, scale] as const;
  const [y, room] = backend.madeAll(
    [
      [B, T, D],
      [M, width],
    ],
    ([y, room]) =>
      backend.addon.encoderLayers([B, T, D, F, numHeads], ...before, room!, y!, backend.precision),
  );
  backend.disposeData(room!.dataId, true);
  return y!;
};

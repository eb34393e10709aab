// The layers of a decoder during generation, in one call of the addon.
import type { NnKernel } from './kernel';
import { layerArguments } from './layer-arguments';

export const decoderLayers: NnKernel<'NnDecoderLayers'> = (inputs, attrs, backend) => {
  const { x, keyMask, keys, values } = inputs;
  const { numHeads, eps, normFirst, activation, rows } = attrs;
  const [B, T, D] = x.shape as [number, number, number];
  const F = inputs.weights[4]!.shape[0]!;
  const shapes = [...Array.from({ length: 4 }, () => [D, D]), [F, D], [D, F]];
  const { norms, linears } = layerArguments('NnDecoderLayers', inputs, attrs, { M: B * T, shapes }, backend);
  const before = [
    backend.floats(x),
    norms,
    eps,
    normFirst,
    activation,
    ...linears,
    (D / numHeads) ** -0.5,
  ] as const;
  const lengths = rows.map((_, page) => keys[page]!.shape[1]!);
  const [ks, vs] = [keys, values].map((list) => list.map((one) => backend.floats(one)));
  const mask = backend.floatsOrNull(keyMask);
  const L = inputs.weights.length / 6;
  // y, then the new keys and the new values of each layer
  const made = backend.madeAll(
    Array.from({ length: 1 + 2 * L }, () => [B, T, D]),
    ([y, ...own]) =>
      backend.addon.decoderLayers(
        [B, T, D, F, numHeads],
        ...before,
        ...[lengths, ks!, vs!, rows, mask, own.slice(0, L), own.slice(L), y!, backend.precision],
      ),
  );
  const [y, ...own] = made;
  return [y!, ...own.slice(0, L).flatMap((k, i) => [k, own[L + i]!])];
};

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
  const made = () => backend.allocate([B, T, D]);
  const y = made();
  const own = Array.from({ length: inputs.weights.length / 6 }, () => ({ k: made(), v: made() }));
  backend.addon.decoderLayers(
    [B, T, D, F, numHeads],
    backend.floats(x),
    norms,
    eps,
    normFirst,
    activation,
    ...linears,
    (D / numHeads) ** -0.5,
    rows.map((_, page) => keys[page]!.shape[1]!),
    keys.map((k) => backend.floats(k)),
    values.map((v) => backend.floats(v)),
    rows,
    backend.floatsOrNull(keyMask),
    own.map(({ k }) => k.values),
    own.map(({ v }) => v.values),
    y.values,
    backend.precision,
  );
  return [y.info, ...own.flatMap(({ k, v }) => [k.info, v.info])];
};

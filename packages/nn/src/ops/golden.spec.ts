/** The ops of T5 on every backend, compared with torch and transformers (tools/parity/make_ops_fixture.py). */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { attention, gatedGelu, mul, rmsNorm, sum, tensor, valueAndGrads } from '../index';
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from '../index';

interface Array {
  shape: number[];
  values: number[];
}
type Golden<Name extends string, Facts = object> = Facts & {
  inputs: Record<Name, Array>;
  output: Array;
  dy: Array;
  grads: Record<Name, Array>;
};
interface AttentionFacts {
  name: string;
  numHeads: number;
  causal: boolean;
  mask: number[][] | null;
  scale: number | null;
}
const golden = JSON.parse(readFileSync(new URL('../../fixtures/ops.json', import.meta.url), 'utf8')) as {
  attention: Golden<'q' | 'k' | 'v' | 'bias', AttentionFacts>[];
  rmsNorm: Golden<'x' | 'weight', { eps: number }>[];
  gatedGelu: Golden<'gate' | 'x'>[];
};

const held = ({ values, shape }: Array) => tensor(values, shape);

/** Compares the output and gradients of `f` for the named inputs with those of Python. */
async function check<Name extends string>(
  c: Golden<Name>,
  f: (inputs: Record<Name, Tensor>) => Tensor,
  tolerance: number,
): Promise<void> {
  const names = Object.keys(c.inputs) as Name[];
  const inputs = Object.fromEntries(names.map((name) => [name, held(c.inputs[name])])) as Record<
    Name,
    Tensor
  >;
  const output = f(inputs);
  expect(output.shape).toEqual(c.output.shape);
  await expectClose(output, c.output.values, tolerance);
  const loss = () => sum(mul(f(inputs), held(c.dy))) as Scalar;
  const { grads } = valueAndGrads(
    loss,
    names.map((name) => inputs[name]),
  );
  for (const [i, name] of names.entries()) {
    expect(grads[i].shape, name).toEqual(c.grads[name].shape);
    await expectClose(grads[i], c.grads[name].values, tolerance);
  }
}

onEveryBackend('golden values', () => {
  describe('attention with a bias', () => {
    it.each(golden.attention)('$name', async (c) => {
      const { numHeads, causal, scale } = c;
      const keyMask = c.mask ? tensor<Tensor2D>(c.mask.flat(), [c.mask.length, c.mask[0].length]) : undefined;
      const f = ({ q, k, v, bias }: Record<'q' | 'k' | 'v' | 'bias', Tensor>) =>
        attention(q as Tensor3D, k as Tensor3D, v as Tensor3D, {
          numHeads,
          causal,
          keyMask,
          scale: scale ?? undefined,
          bias: bias as Tensor4D,
        });
      await check(c, f, 1e-6);
    });
  });

  it.each(golden.rmsNorm)('rmsNorm with eps $eps', (c) =>
    check(c, ({ x, weight }) => rmsNorm({ weight: weight as Tensor1D }, x, c.eps), 3e-6),
  );

  it.each(golden.gatedGelu)('gatedGelu', (c) => check(c, ({ gate, x }) => gatedGelu(gate, x), 3e-6));
});

/** AdamW and the sum of squares, of lists of tensors. */
import type { KernelsOf } from '../kernel';
import { sizeOf } from '../kernel';
import { elementsOf, f32, lineOf } from '../program';
import adamW from '../wgsl/optimizer';
import squaresCode from '../wgsl/squares';
import totals from '../wgsl/totals';

const squares = totals + squaresCode;

/** Numbers of a tensor that a group squares and adds. */
const BLOCK = 4096;

export const optimizer: KernelsOf<'NnSquaredSum' | 'NnAdamW'> = {
  NnSquaredSum({ xs }, _attrs, backend) {
    const blocks = xs.map(({ shape }) => Math.ceil(sizeOf(shape) / BLOCK));
    const count = blocks.reduce((sum, n) => sum + n, 0);
    const [parts, total] = [backend.allocate([Math.max(1, count)]), backend.allocate([])];
    let at = 0;
    xs.forEach((x, i) => {
      const program = { name: 'squares', code: squares, constants: { OP: 0 } };
      backend.run(program, lineOf(blocks[i]!), [x, parts], [sizeOf(x.shape), at]);
      at += blocks[i]!;
    });
    backend.run({ name: 'squares', code: squares, constants: { OP: 1 } }, [1], [parts, total], [count, 0]);
    backend.release(parts);
    return total;
  },

  NnAdamW({ scale, params, grads, m, v }, o, backend) {
    const { lr, beta1, beta2, eps, weightDecays, c1, c2 } = o;
    const made = [params, m, v].map((list) => list.map(({ shape }) => backend.allocate(shape)));
    params.forEach((param, i) => {
      const count = sizeOf(param.shape);
      const bound = [scale, param, grads[i], m[i], v[i], ...made.map((list) => list[i])];
      const first = [f32(1 - lr * weightDecays[i]!), f32(1 - beta1), f32(beta2)];
      const rest = [f32(1 - beta2), f32(eps), f32(lr / c1), f32(Math.sqrt(c2))];
      backend.run({ name: 'adamw', code: adamW }, elementsOf(count), bound, [count, ...first, ...rest]);
    });
    return made.flat();
  },
};

/** Kernels that work on each element alone. */
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend } from '../backend';
import type { KernelsOf } from '../kernel';
import { sizeOf } from '../kernel';
import { elementsOf, f32 } from '../program';
import functions from '../wgsl/activations';
import elements from '../wgsl/elements';
import exact from '../wgsl/exact';
import philox from '../wgsl/philox';
import { dropUniforms } from './dropout';
import type { Drop } from './dropout';

const code = philox + exact + functions + elements;

interface Bound {
  a: TensorInfo;
  b?: TensorInfo;
  gate?: TensorInfo;
  flags?: TensorInfo;
  y2?: TensorInfo;
  positive?: TensorInfo;
  drop?: Drop;
}

/** Runs one of the functions of the shader → y, of the shape of a. */
function each(backend: GpuBackend, OP: number, { a, b, gate, flags, y2, positive, drop }: Bound) {
  const y = backend.allocate(a.shape);
  const { key0, key1, least, keep } = dropUniforms(drop);
  const count = sizeOf(a.shape);
  const program = { name: 'elements', code, constants: { OP } };
  const bound = [a, b, gate, flags, y, y2, positive];
  backend.run(program, elementsOf(count), bound, [count, key0, key1, least, f32(keep)]);
  return y;
}

export const elementwise: KernelsOf<
  'NnGelu' | 'NnGeluGrad' | 'NnGatedGelu' | 'NnGatedGeluGrad' | 'NnRelu' | 'NnReluGrad' | 'NnDropout'
> = {
  NnGelu: ({ x }, _attrs, backend) => each(backend, 0, { a: x }),
  NnGeluGrad: ({ dy, x }, _attrs, backend) => each(backend, 1, { a: dy, b: x }),
  NnGatedGelu: ({ gate, x }, _attrs, backend) => each(backend, 2, { a: x, gate }),
  NnGatedGeluGrad({ dy, gate, x }, _attrs, backend) {
    const dx = backend.allocate(x.shape);
    return [each(backend, 3, { a: dy, b: x, gate, y2: dx }), dx];
  },
  NnRelu({ x }, _attrs, backend) {
    const positive = backend.allocate(x.shape, 'bool');
    return [each(backend, 4, { a: x, positive }), positive];
  },
  NnReluGrad: ({ dy, positive }, _attrs, backend) => each(backend, 5, { a: dy, flags: positive }),
  NnDropout: ({ x }, attrs, backend) => each(backend, 6, { a: x, drop: attrs }),
};

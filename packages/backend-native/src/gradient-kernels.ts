// Kernels for the gradients of Max and Slice; tfjs's own are slow, since they compute the coordinates of every element.
import { backend_util } from '@tensorflow/tfjs-core';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeKernel } from './kernel';
import { broadcastStrides, copy, isFloat, maxRank, strided, stridesOf } from './tfjs-kernels';

function equal(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b } = inputs as { a: TensorInfo; b: TensorInfo };
    const shape = backend_util.assertAndGetBroadcastShape(a.shape, b.shape);
    if (!isFloat(a, b) || shape.length > maxRank) return otherwise(inputs, attrs, backend);
    const same = [a, b].map((t) => strided(backend, t, shape, broadcastStrides(t.shape, shape)));
    const [x, y] = same.map((t) => backend.floats(t)) as [Float32Array, Float32Array];
    const equals = backend.allocateFlags(shape);
    for (let i = 0; i < x.length; i++) equals.values[i] = x[i] === y[i] ? 1 : 0;
    same.forEach((t) => backend.disposeIntermediateTensorInfo(t));
    return equals.info;
  };
}

/** Converts to float32 once; tfjs only changes the type, and every later kernel converts the values again. */
function cast(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    if ((attrs as { dtype: string }).dtype !== 'float32' || (x.dtype !== 'bool' && x.dtype !== 'int32'))
      return otherwise(inputs, attrs, backend);
    const y = backend.allocate(x.shape);
    y.values.set(backend.data.get(x.dataId).values as unknown as ArrayLike<number>);
    return y.info;
  };
}

function pad(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    const { paddings, constantValue } = attrs as { paddings: [number, number][]; constantValue: number };
    if (!isFloat(x) || x.shape.length > maxRank) return otherwise(inputs, attrs, backend);
    const shape = x.shape.map((n, axis) => paddings[axis]![0] + n + paddings[axis]![1]);
    const y = backend.allocate(shape);
    y.values.fill(constantValue);
    const strides = stridesOf(shape);
    const offset = paddings.reduce((at, [before], axis) => at + before * strides[axis]!, 0);
    const from = { values: backend.floats(x), offset: 0, strides: stridesOf(x.shape) };
    copy(backend, x.shape, from, { values: y.values, offset, strides });
    return y.info;
  };
}

/** The overridden kernels; `cpu` returns tfjs's own kernel of a name. */
export function gradientKernels(cpu: (name: string) => NativeKernel): Record<string, NativeKernel> {
  return { Equal: equal(cpu('Equal')), Cast: cast(cpu('Cast')), PadV2: pad(cpu('PadV2')) };
}

// Kernels that the gradients of Max and Slice need, where tfjs's own visit every element through its coordinates.
import { backend_util } from '@tensorflow/tfjs-core';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeKernel } from './kernel';
import { broadcastStrides, collapse, copy, isFloat, maxRank, stridesOf } from './tfjs-kernels';

function equal(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b } = inputs as { a: TensorInfo; b: TensorInfo };
    if (!isFloat(a, b)) return otherwise(inputs, attrs, backend);
    const shape = backend_util.assertAndGetBroadcastShape(a.shape, b.shape);
    const joined = collapse(shape, broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape));
    const [x, y] = [backend.floats(a), backend.floats(b)];
    const [xStrides, yStrides] = joined.strides as [number[], number[]];
    const last = joined.shape.length - 1;
    const [length, xStep, yStep] = [joined.shape[last]!, xStrides[last]!, yStrides[last]!];
    const out = new Uint8Array(shape.reduce((size, n) => size * n, 1));
    const at = new Array<number>(last).fill(0);
    for (let start = 0, i = 0, j = 0; start < out.length; start += length) {
      for (let e = 0; e < length; e++) out[start + e] = x[i + e * xStep] === y[j + e * yStep] ? 1 : 0;
      for (let axis = last - 1; axis >= 0; axis--) {
        i += xStrides[axis]!;
        j += yStrides[axis]!;
        if (++at[axis]! < joined.shape[axis]!) break;
        i -= xStrides[axis]! * at[axis]!;
        j -= yStrides[axis]! * at[axis]!;
        at[axis] = 0;
      }
    }
    return backend.makeTensorInfo(shape, 'bool', out);
  };
}

/** To float32, as numbers: tfjs would only rename the type and leave each later kernel to convert. */
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

/** The overridden kernels; `cpu` gives tfjs's own kernel of a name. */
export function gradientKernels(cpu: (name: string) => NativeKernel): Record<string, NativeKernel> {
  return { Equal: equal(cpu('Equal')), Cast: cast(cpu('Cast')), PadV2: pad(cpu('PadV2')) };
}
